//! Rule: files and functions stay small, and what is big may only shrink.
//!
//! What exceeds the aim is listed in xtask/sizes.toml with its exact size, so every change of a big file
//! shows up in review as a number that went up or down.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use syn::spanned::Spanned;
use syn::visit::Visit;

use super::source::Source;
use super::{Breach, parse};

/// What we aim at; more has to be listed.
const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;
/// What no listing excuses.
const FILE_LINES_CAP: usize = 800;

/// Lines by name: the path of a file, or `path::Type::function`.
type Lines = BTreeMap<String, usize>;

/// The sizes of everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Measured {
    files: Lines,
    functions: Lines,
}

/// What xtask/sizes.toml lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    files: Lines,
    functions: Lines,
}

pub fn measure(sources: &[Source]) -> Result<Measured> {
    let mut measured = Measured::default();
    for source in sources.iter().filter(|source| source.is_rust()) {
        measured.files.insert(source.path.clone(), source.text.lines().count());
        let mut walk = Functions {
            scope: vec![source.path.clone()],
            lines: &mut measured.functions,
        };
        walk.visit_file(&parse(source)?);
    }
    Ok(measured)
}

pub fn check(measured: &Measured, listing: &Listing) -> Vec<Breach> {
    let mut breaches = compare("lines", FILE_LINES, &measured.files, &listing.files);
    breaches.extend(compare(
        "lines in a function",
        FUNCTION_LINES,
        &measured.functions,
        &listing.functions,
    ));
    for (path, lines) in measured.files.iter().filter(|(_, lines)| **lines > FILE_LINES_CAP) {
        breaches.push(breach(
            path,
            format!("{lines} lines; {FILE_LINES_CAP} is the end, listed or not: split the file"),
        ));
    }
    breaches
}

fn compare(what: &str, aim: usize, measured: &Lines, listed: &Lines) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (name, &lines) in measured.iter().filter(|(_, lines)| **lines > aim) {
        match listed.get(name) {
            None => breaches.push(breach(name, format!("{lines} {what}, aim is {aim}: split it"))),
            Some(&allowed) if lines > allowed => {
                breaches.push(breach(name, format!("grew from {allowed} to {lines} {what}: split it")));
            }
            Some(&allowed) if lines < allowed => breaches.push(breach(
                name,
                format!("shrank from {allowed} to {lines} {what}: keep that with `cargo xtask tidy --bless`"),
            )),
            Some(_) => {}
        }
    }
    for name in listed.keys() {
        if measured.get(name).is_none_or(|lines| *lines <= aim) {
            breaches.push(breach(
                name,
                "is listed in xtask/sizes.toml without need: remove it with `cargo xtask tidy --bless`".to_owned(),
            ));
        }
    }
    breaches
}

fn breach(place: &str, problem: String) -> Breach {
    Breach {
        rule: "sizes",
        place: place.to_owned(),
        problem,
    }
}

/// Finds every function with a body and counts its lines, from `fn` to the closing brace.
struct Functions<'a> {
    scope: Vec<String>,
    lines: &'a mut Lines,
}

impl Functions<'_> {
    fn record(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let lines = body.span().end().line + 1 - signature.fn_token.span().start().line;
        let name = format!("{}::{}", self.scope.join("::"), signature.ident);
        // Two of one name stand behind different cfgs: the longer one counts.
        let longest = self.lines.entry(name).or_default();
        *longest = lines.max(*longest);
    }

    fn within(&mut self, name: String, visit: impl FnOnce(&mut Self)) {
        self.scope.push(name);
        visit(self);
        self.scope.pop();
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.record(&function.sig, &function.block);
        let name = function.sig.ident.to_string();
        self.within(name, |walk| syn::visit::visit_item_fn(walk, function));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.record(&function.sig, &function.block);
        let name = function.sig.ident.to_string();
        self.within(name, |walk| syn::visit::visit_impl_item_fn(walk, function));
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.record(&function.sig, body);
        }
        let name = function.sig.ident.to_string();
        self.within(name, |walk| syn::visit::visit_trait_item_fn(walk, function));
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let name = module.ident.to_string();
        self.within(name, |walk| syn::visit::visit_item_mod(walk, module));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        let name = item.ident.to_string();
        self.within(name, |walk| syn::visit::visit_item_trait(walk, item));
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let name = match &*item.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
            _ => None,
        };
        self.within(name.unwrap_or_else(|| "impl".to_owned()), |walk| {
            syn::visit::visit_item_impl(walk, item);
        });
    }
}

impl Measured {
    /// What has to be listed today.
    pub fn to_listing(&self) -> Listing {
        let above = |lines: &Lines, aim: usize| {
            lines
                .iter()
                .filter(|(_, lines)| **lines > aim)
                .map(|(name, lines)| (name.clone(), *lines))
                .collect()
        };
        Listing {
            files: above(&self.files, FILE_LINES),
            functions: above(&self.functions, FUNCTION_LINES),
        }
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# What is bigger than we aim at, with its exact size; it may only shrink."
        )?;
        writeln!(
            f,
            "# Written by `cargo xtask tidy --bless`, checked by `cargo xtask tidy`."
        )?;
        for (section, lines) in [("files", &self.files), ("functions", &self.functions)] {
            writeln!(f, "\n[{section}]")?;
            for (name, size) in lines {
                writeln!(f, "\"{name}\" = {size}")?;
            }
        }
        Ok(())
    }
}

/// Reads the little of TOML that [`Listing`] writes.
impl FromStr for Listing {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut listing = Listing::default();
        let mut section: Option<&mut Lines> = None;
        for (index, line) in text.lines().map(str::trim).enumerate() {
            let number = index + 1;
            match line {
                "" => {}
                "[files]" => section = Some(&mut listing.files),
                "[functions]" => section = Some(&mut listing.functions),
                comment if comment.starts_with('#') => {}
                entry => {
                    let (name, size) = parse_entry(entry).with_context(|| format!("line {number}: {entry}"))?;
                    let lines = section
                        .as_deref_mut()
                        .with_context(|| format!("line {number} stands before the first section"))?;
                    if lines.insert(name, size).is_some() {
                        bail!("line {number} lists a name again");
                    }
                }
            }
        }
        Ok(listing)
    }
}

fn parse_entry(entry: &str) -> Result<(String, usize)> {
    let (name, size) = entry.split_once(" = ").context("expected \"name\" = lines")?;
    let name = name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
        .context("the name must stand in double quotes")?;
    Ok((name.to_owned(), size.parse().context("the size must be a number")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(path: &str, text: String) -> Source {
        Source {
            path: path.to_owned(),
            text,
        }
    }

    /// A file with one method of so many lines.
    fn method_of(lines: usize) -> Source {
        let body = "    let _ = 1;\n".repeat(lines - 2);
        rust("a.rs", format!("impl Thing {{\n/// Does.\nfn act() {{\n{body}}}\n}}\n"))
    }

    fn problems(sources: &[Source], listing: &str) -> Vec<String> {
        let measured = measure(sources).unwrap();
        let breaches = check(&measured, &listing.parse().unwrap());
        breaches.iter().map(Breach::to_string).collect()
    }

    #[test]
    fn a_file_over_the_aim_must_be_listed() {
        let big = [rust("big.rs", "//\n".repeat(401))];
        assert_eq!(problems(&big, ""), ["big.rs: sizes: 401 lines, aim is 400: split it"]);
        assert!(problems(&big, "[files]\n\"big.rs\" = 401\n").is_empty());
        assert!(problems(&[rust("fine.rs", "//\n".repeat(400))], "").is_empty());
    }

    #[test]
    fn what_is_listed_may_only_shrink_and_then_the_list_must_follow() {
        let big = [rust("big.rs", "//\n".repeat(420))];
        let grew = problems(&big, "[files]\n\"big.rs\" = 410\n");
        assert_eq!(grew, ["big.rs: sizes: grew from 410 to 420 lines: split it"]);
        let shrank = problems(&big, "[files]\n\"big.rs\" = 430\n");
        assert!(shrank[0].contains("shrank from 430 to 420"), "{shrank:?}");
        let gone = problems(&[], "[files]\n\"big.rs\" = 430\n");
        assert!(gone[0].contains("without need"), "{gone:?}");
    }

    #[test]
    fn no_listing_excuses_a_file_beyond_the_cap() {
        let huge = [rust("huge.rs", "//\n".repeat(801))];
        let found = problems(&huge, "[files]\n\"huge.rs\" = 801\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("800 is the end"), "{found:?}");
    }

    #[test]
    fn a_long_function_is_caught_by_its_full_name() {
        let found = problems(&[method_of(71)], "");
        assert_eq!(
            found,
            ["a.rs::Thing::act: sizes: 71 lines in a function, aim is 70: split it"]
        );
        assert!(problems(&[method_of(70)], "").is_empty());
        assert!(problems(&[method_of(71)], "[functions]\n\"a.rs::Thing::act\" = 71\n").is_empty());
    }

    #[test]
    fn a_written_listing_reads_back() {
        let measured = measure(&[method_of(90), rust("b.rs", "//\n".repeat(500))]).unwrap();
        let listing = measured.to_listing();
        assert_eq!(listing.files.len() + listing.functions.len(), 2);
        assert_eq!(listing.to_string().parse::<Listing>().unwrap(), listing);
    }

    #[test]
    fn a_malformed_listing_is_refused() {
        for text in [
            "\"a\" = 1",
            "[files]\na = 1",
            "[files]\n\"a\" = many",
            "[files]\n\"a\" = 1\n\"a\" = 2",
        ] {
            assert!(text.parse::<Listing>().is_err(), "{text}");
        }
    }
}
