//! Commands in Markdown.

use anyhow::{Result, bail, ensure};

/// Where a block is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Where the reader is.
    Here,
    /// Where it may stay until Ctrl-C.
    OwnTerminal,
    /// On hosts of these names, one after the other.
    Hosts(Vec<String>),
    EveryHost,
}

/// What a reader types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub place: Place,
    pub script: String,
    /// The line of its fence.
    pub line: usize,
    /// What must be seen afterwards: `<!-- shows: TEXT -->` below the block, once for each.
    pub shows: Vec<String>,
}

/// All blocks of a file, in order.
pub fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(wanted) = line
            .strip_prefix("<!-- shows: ")
            .and_then(|rest| rest.strip_suffix(" -->"))
        {
            match blocks.last_mut() {
                Some(block) => block.shows.push(wanted.to_owned()),
                None => bail!("line {}: nothing was run that could show this", index + 1),
            }
        }
        let Some(language) = line.strip_prefix("```") else {
            continue;
        };
        let mut content = Vec::new();
        loop {
            match lines.next() {
                Some((_, "```")) => break,
                Some((_, inner)) => content.push(inner),
                None => bail!("line {}: the block has no end", index + 1),
            }
        }
        if language != "sh" {
            continue;
        }
        let place = place_of(content.first().copied().unwrap_or_default());
        let script = content.join("\n");
        ensure!(!script.trim().is_empty(), "line {}: the block is empty", index + 1);
        blocks.push(Block {
            place,
            script,
            line: index + 1,
            shows: Vec::new(),
        });
    }
    Ok(blocks)
}

fn place_of(first: &str) -> Place {
    let Some(comment) = first.strip_prefix("# ") else {
        return Place::Here;
    };
    match comment.split(':').next().unwrap_or(comment) {
        "in a terminal of its own" => Place::OwnTerminal,
        "on every host" => Place::EveryHost,
        other => match other.strip_prefix("on ") {
            Some(hosts) => Place::Hosts(
                hosts
                    .split(" and ")
                    .flat_map(|part| part.split(", "))
                    .map(str::to_owned)
                    .collect(),
            ),
            None => Place::Here,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_their_places_and_what_they_show() {
        let text = "# Title\n```sh\nls\n```\n<!-- shows: one -->\n<!-- shows: two -->\n```text\nno command\n```\n\
                    ```sh\n# on beta and gamma: both\ntrue\n```\n```sh\n# in a terminal of its own\nsleep 9\n```\n\
                    ```sh\n# on every host\ntrue\n```\n";
        let found = blocks(text).unwrap();
        let places: Vec<&Place> = found.iter().map(|block| &block.place).collect();
        let hosts = Place::Hosts(vec!["beta".to_owned(), "gamma".to_owned()]);
        assert_eq!(places, [&Place::Here, &hosts, &Place::OwnTerminal, &Place::EveryHost]);
        assert_eq!((found[0].script.as_str(), found[0].line), ("ls", 2));
        assert_eq!(found[0].shows, ["one", "two"]);
        assert!(found[1].shows.is_empty());
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for (text, says) in [
            ("```sh\nls\n", "no end"),
            ("```sh\n\n```\n", "empty"),
            ("<!-- shows: x -->\n", "nothing was run"),
        ] {
            let error = blocks(text).unwrap_err();
            assert!(error.to_string().contains(says), "{text:?}: {error}");
        }
    }
}
