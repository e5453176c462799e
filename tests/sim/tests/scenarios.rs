//! Every scenario of the tree is as its file says, and a file that is wrong is told.

use std::path::Path;

use plasmavmc_sim::scenario::{as_expected, files, parse, play};

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios"))
}

#[test]
fn every_file_is_as_it_says() {
    let files = files(folder());
    assert!(files.len() >= 60, "{}", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let scenario = parse(&text).unwrap_or_else(|problem| panic!("{}: {problem}", file.display()));
        assert!(text.starts_with('#'), "{} does not say what it shows", file.display());
        let played = play(&scenario);
        assert_eq!(played.problem, None, "{}", file.display());
    }
}

const CUT: &str = "# A cut.\nhosts h1 h2 h3\nvm a\nvm b\nat 5s cut h2\nend 9s\n";

#[test]
fn what_was_written_as_expected_passes_and_anything_else_fails() {
    let scenario = parse(CUT).unwrap();
    let text = as_expected(&scenario, &play(&scenario).log);
    assert_eq!(play(&parse(&text).unwrap()).problem, None, "{text}");
    let wrong = text.replace("end: a executes on h1", "end: a executes on h2");
    assert!(play(&parse(&wrong).unwrap()).problem.unwrap().starts_with("expected"));
    let late = text.replace("  7.", "  1.").replace("-8.", "-2.");
    assert!(play(&parse(&late).unwrap()).problem.unwrap().starts_with("expected"));
    let (shorter, _) = text.trim_end().rsplit_once('\n').unwrap();
    assert!(
        play(&parse(shorter).unwrap())
            .problem
            .unwrap()
            .starts_with("unexpected")
    );
    let longer = format!("{text}  9.0-9.0 h2 fenced\n");
    assert!(play(&parse(&longer).unwrap()).problem.unwrap().starts_with("missing"));
}

#[test]
fn what_is_not_understood_is_told_with_its_line() {
    let cases = [
        ("hosts h1\nat 5s explode h1\n", "line 2: explode h1 is no command"),
        ("hosts h1\nat 5s cut h9\n", "line 2: there is no host h9"),
        ("hosts h1\nvm a colour=red\n", "line 2: a VM has no colour"),
        ("hosts h1\ntimings freeze=1s\n", "line 2: "),
        ("weather rain\n", "line 1: weather is no word of a scenario"),
        ("vm a\n", "there are no hosts"),
        ("hosts h1\nat soon cut h1\n", "line 2: \"soon\" is no number"),
    ];
    for (text, expected) in cases {
        let problem = parse(text).unwrap_err().to_string();
        assert!(problem.contains(expected), "{text}: {problem}");
    }
}
