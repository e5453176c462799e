//! What a guest is made of, as one digest: the key of the cache.
//!
//! The digest covers what this tree decides (scripts, lists, the builder's own source), not the versions
//! of the packages: a cached guest stays good when the mirror moves on, and the same command works offline.

use sha2::{Digest, Sha256};

pub struct Recipe {
    digest: Sha256,
}

impl Recipe {
    pub fn new(name: &str) -> Self {
        let mut recipe = Self { digest: Sha256::new() };
        recipe.ingredient("guest", name);
        recipe.ingredient("architecture", std::env::consts::ARCH);
        recipe
    }

    /// Lengths go in as well, so that no two lists of ingredients give the same bytes.
    pub fn ingredient(&mut self, name: &str, content: &str) {
        for part in [name, content] {
            self.digest.update((part.len() as u64).to_be_bytes());
            self.digest.update(part);
        }
    }

    pub fn key(self) -> String {
        self.digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Recipe;

    fn key(ingredients: &[(&str, &str)]) -> String {
        let mut recipe = Recipe::new("test");
        for (name, content) in ingredients {
            recipe.ingredient(name, content);
        }
        recipe.key()
    }

    #[test]
    fn the_key_follows_every_ingredient() {
        assert_eq!(key(&[("a", "1")]), key(&[("a", "1")]));
        assert_ne!(key(&[("a", "1")]), key(&[("a", "2")]));
        assert_ne!(key(&[("ab", "c")]), key(&[("a", "bc")]));
        assert_ne!(key(&[("a", "1"), ("b", "")]), key(&[("a", "1b"), ("", "")]));
    }
}
