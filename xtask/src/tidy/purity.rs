//! Rule: plasmavmc-core and plasmavmc-types decide and describe, nothing else.
//!
//! No I/O, no clock, no randomness, no threads, no environment, no order that depends on a hash. The same
//! input must give the same decision on every host, in the simulator and in a replay. `now` is an
//! argument.

use std::collections::BTreeMap;

use anyhow::Result;
use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::Visit;

use super::source::Source;
use super::{Breach, parse};

/// Everything at or below these paths.
const BANNED_PATHS: &[(&str, &str)] = &[
    ("std::collections::HashMap", "iterates in random order: use BTreeMap"),
    ("std::collections::HashSet", "iterates in random order: use BTreeSet"),
    ("std::collections::hash_map", "iterates in random order: use BTreeMap"),
    ("std::collections::hash_set", "iterates in random order: use BTreeSet"),
    ("std::env", "reads the environment: take a value as an argument"),
    ("std::fs", "is I/O: leave it to the caller"),
    ("std::hash::RandomState", "is random"),
    ("std::io", "is I/O: leave it to the caller"),
    (
        "std::net",
        "is I/O: leave it to the caller (core::net has the plain address types)",
    ),
    ("std::os", "is I/O: leave it to the caller"),
    ("std::process", "starts or ends processes: leave it to the caller"),
    ("std::thread", "starts threads: a decision is a plain call"),
    ("std::time::Instant", "reads a clock: take `now` as an argument"),
    ("std::time::SystemTime", "reads a clock: take `now` as an argument"),
    ("std::time::UNIX_EPOCH", "belongs to a clock: take `now` as an argument"),
    ("chrono", "reads clocks: take `now` as an argument"),
    ("rand", "is random: take the value as an argument"),
    ("tokio", "is a runtime: a decision is a plain call"),
];

/// Functions by their last name, whatever they belong to.
const BANNED_FUNCTIONS: &[(&str, &str)] = &[
    ("new_v4", "is random: take the id as an argument"),
    ("now_v1", "reads a clock: take the id as an argument"),
    ("now_v6", "reads a clock: take the id as an argument"),
    ("now_v7", "reads a clock: take the id as an argument"),
];

const BANNED_MACROS: &[(&str, &str)] = &[
    ("print", "is I/O: return what there is to say"),
    ("println", "is I/O: return what there is to say"),
    ("eprint", "is I/O: return what there is to say"),
    ("eprintln", "is I/O: return what there is to say"),
    ("thread_local", "is hidden state: pass it as an argument"),
];

pub fn applies_to(path: &str) -> bool {
    let pure = ["plasmavmc-core/src/", "plasmavmc-types/src/"];
    path.ends_with(".rs") && pure.iter().any(|folder| path.starts_with(folder))
}

pub fn check(source: &Source) -> Result<Vec<Breach>> {
    let file = parse(source)?;
    let mut imports = Imports::default();
    imports.visit_file(&file);
    let mut walk = Walk {
        path: &source.path,
        names: imports.names,
        breaches: imports
            .breaches
            .into_iter()
            .map(|(line, problem)| breach(&source.path, line, problem))
            .collect(),
    };
    walk.visit_file(&file);
    Ok(walk.breaches)
}

fn breach(path: &str, line: usize, problem: String) -> Breach {
    Breach {
        rule: "purity",
        place: format!("{path}:{line}"),
        problem,
    }
}

/// Whether a full path is at or below a banned one, and why it is banned.
fn banned(path: &str) -> Option<String> {
    let below = |ban: &str| {
        path.strip_prefix(ban)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let by_path = BANNED_PATHS.iter().find(|(ban, _)| below(ban));
    let last = path.rsplit("::").next().unwrap_or(path);
    let by_name = BANNED_FUNCTIONS.iter().find(|(name, _)| *name == last);
    by_path.or(by_name).map(|(_, reason)| format!("`{path}` {reason}"))
}

/// What the `use` items of a file bring in: the short name and the full path, wherever they stand.
#[derive(Default)]
struct Imports {
    names: BTreeMap<String, String>,
    breaches: Vec<(usize, String)>,
}

impl Imports {
    fn walk(&mut self, tree: &syn::UseTree, prefix: &[String]) {
        let line = tree.span().start().line;
        match tree {
            syn::UseTree::Path(path) => {
                let mut longer = prefix.to_vec();
                longer.push(path.ident.to_string());
                self.walk(&path.tree, &longer);
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.walk(item, prefix)),
            syn::UseTree::Name(name) => self.bring(line, prefix, &name.ident.to_string(), &name.ident.to_string()),
            syn::UseTree::Rename(rename) => {
                self.bring(line, prefix, &rename.ident.to_string(), &rename.rename.to_string());
            }
            syn::UseTree::Glob(_) => self.bring_everything(line, prefix),
        }
    }

    fn bring(&mut self, line: usize, prefix: &[String], name: &str, as_name: &str) {
        let mut full = prefix.to_vec();
        if name != "self" {
            full.push(name.to_owned());
        }
        let full = full.join("::");
        if let Some(reason) = banned(&full) {
            self.breaches.push((line, reason));
        }
        let short = if as_name == "self" {
            prefix.last().cloned()
        } else {
            Some(as_name.to_owned())
        };
        if let Some(short) = short {
            self.names.insert(short, full);
        }
    }

    /// A glob hides names from this rule, so it may not stand above anything banned.
    fn bring_everything(&mut self, line: usize, prefix: &[String]) {
        let prefix = prefix.join("::");
        let hides = BANNED_PATHS
            .iter()
            .any(|(ban, _)| ban.starts_with(&format!("{prefix}::")));
        if hides || banned(&prefix).is_some() {
            self.breaches.push((
                line,
                format!("`{prefix}::*` may bring in what is banned: name what you need"),
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.walk(&item.tree, &[]);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.breaches.push((
            item.span().start().line,
            "`extern crate` can rename what is banned: use paths".to_owned(),
        ));
    }
}

/// Checks every path of the code, with imported first names replaced by what they stand for.
struct Walk<'a> {
    path: &'a str,
    names: BTreeMap<String, String>,
    breaches: Vec<Breach>,
}

impl Walk<'_> {
    fn check_path(&mut self, line: usize, segments: &[String]) {
        let Some((first, rest)) = segments.split_first() else {
            return;
        };
        let mut full = self.names.get(first).unwrap_or(first).clone();
        for segment in rest {
            full = format!("{full}::{segment}");
        }
        // An imported name by itself was reported where it was imported.
        let reported = rest.is_empty() && self.names.contains_key(first);
        if let Some(reason) = banned(&full).filter(|_| !reported) {
            self.breaches.push(breach(self.path, line, reason));
        }
    }

    /// The inside of a macro is only tokens: look for `a::b::c` among them.
    fn check_tokens(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.check_path(line, &std::mem::take(&mut segments));
                    }
                    line = ident.span().start().line;
                    segments.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.check_path(line, &std::mem::take(&mut segments));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.check_tokens(group.stream());
                    }
                }
            }
        }
        self.check_path(line, &segments);
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_use(&mut self, _: &'ast syn::ItemUse) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.check_path(path.span().start().line, &segments);
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let line = call.span().start().line;
        let name = call.path.segments.last().map(|segment| segment.ident.to_string());
        let found = BANNED_MACROS.iter().find(|(ban, _)| Some(*ban) == name.as_deref());
        if let Some((ban, reason)) = found {
            self.breaches
                .push(breach(self.path, line, format!("`{ban}!` {reason}")));
        }
        self.check_tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let source = Source {
            path: "plasmavmc-core/src/sample.rs".to_owned(),
            text: text.to_owned(),
        };
        check(&source).unwrap().iter().map(Breach::to_string).collect()
    }

    #[test]
    fn every_way_to_name_what_is_banned_is_caught() {
        let offending = [
            "use std::fs;",
            "use std::{fmt, fs::File};",
            "use std::{collections::{BTreeMap, HashMap}, fmt};",
            "use std::collections::HashSet as Set;",
            "use std::io::{self, Read};",
            "use std::time::*;",
            "use std::*;",
            "use std::net::IpAddr;",
            "extern crate std as innocent;",
            "fn f() { std::thread::spawn(|| ()); }",
            "fn f() { let _ = std::env::var(\"HOME\"); }",
            "fn f() -> std::time::Instant { panic!() }",
            "use std::time; fn f() { time::Instant::now(); }",
            "use std as innocent; fn f() { innocent::process::exit(1); }",
            "struct S { m: std::collections::HashMap<u8, u8> }",
            "fn f() { let _ = std::time::SystemTime::now(); }",
            "fn f() { rand::random::<u8>(); }",
            "async fn f() { tokio::task::yield_now().await; }",
            "fn f() { uuid::Uuid::new_v4(); }",
            "use uuid::Uuid; fn f() { Uuid::now_v7(); }",
            "fn f() { println!(\"hello\"); }",
            "fn f() { assert!(std::fs::exists(\"x\").unwrap()); }",
            "fn f() { let _ = vec![std::collections::HashMap::<u8, u8>::new()]; }",
            "thread_local! { static X: u8 = 1; }",
            "mod inner { use std::process::Command; }",
        ];
        for text in offending {
            assert!(!problems(text).is_empty(), "not caught: {text}");
        }
    }

    #[test]
    fn what_is_pure_is_not() {
        let fine = [
            "use std::collections::{BTreeMap, BTreeSet, VecDeque};",
            "use std::time::Duration; fn f(d: Duration) -> std::time::Duration { d }",
            "use core::net::IpAddr;",
            "use std::fmt::{self, Write as _}; fn f() -> fmt::Result { Ok(()) }",
            "fn f() { let s = format!(\"{}\", 1); assert_eq!(s, \"1\"); }",
            "use uuid::Uuid; fn f(id: Uuid) -> u128 { id.as_u128() }",
            "fn f(process: u8, env: u8) -> u8 { process + env }",
            "fn rand() {} fn f() { let operand = 1; let _ = operand; }",
        ];
        for text in fine {
            assert_eq!(problems(text), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn the_place_is_the_line_and_the_reason_tells_what_to_do() {
        let found = problems("\n\nfn f() {\n    std::time::Instant::now();\n}\n");
        assert_eq!(
            found,
            [
                "plasmavmc-core/src/sample.rs:4: purity: `std::time::Instant::now` reads a clock: take `now` as an argument"
            ]
        );
    }

    #[test]
    fn only_the_pure_crates_are_checked() {
        assert!(applies_to("plasmavmc-core/src/plan/mod.rs"));
        assert!(applies_to("plasmavmc-types/src/lib.rs"));
        assert!(!applies_to("plasmavmc-server/src/main.rs"));
        assert!(!applies_to("plasmavmc-core/Cargo.toml"));
    }
}
