use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, String> {
    Cli::try_parse_from(split(line)).map_err(|error| error.to_string())
}

/// As a shell splits it, so far as the examples need it.
fn split(line: &str) -> Vec<String> {
    let line = line.split(" > ").next().unwrap_or(line);
    let mut words = line
        .split_whitespace()
        .map(str::to_owned)
        .take_while(|word| !word.starts_with('<'));
    words.by_ref().collect()
}

fn commands(command: clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
    for sub in command.get_subcommands() {
        commands(sub.clone(), &format!("{path} {}", sub.get_name()), found);
    }
    found.push((path.to_owned(), command));
}

fn all_commands() -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    commands(Cli::command(), "plasmavmc", &mut found);
    found
}

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_has_an_example_that_parses() {
    for (path, command) in all_commands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let mut examples = help
            .lines()
            .filter_map(|line| line.trim().find("plasmavmc ").map(|at| &line.trim()[at..]));
        let mut count = 0;
        for example in examples
            .by_ref()
            .filter(|example| !example.contains('`') && !example.contains("vm get VM"))
        {
            // What follows the command in a column of its own explains it.
            let example = example.split("   ").next().unwrap_or(example);
            count += 1;
            parse(example).unwrap_or_else(|error| panic!("{path}: {example}: {error}"));
            let is_own = path == "plasmavmc" || example.contains(path.rsplit(' ').next().unwrap_or_default());
            let is_alias = command.get_visible_aliases().any(|alias| example.contains(alias));
            assert!(is_own || is_alias, "{path}: {example} is about something else");
        }
        assert!(count > 0, "{path} has no example");
    }
}

#[test]
fn every_argument_is_explained() {
    for (path, command) in all_commands() {
        for argument in command.get_arguments() {
            let is_plain = argument.get_help().is_some() || argument.is_positional();
            assert!(is_plain, "{path}: {} has no help", argument.get_id());
        }
        assert!(command.get_about().is_some(), "{path} says not what it does");
    }
}

#[test]
fn a_command_that_names_no_vm_is_refused() {
    let of_a_vm = [
        "get", "start", "stop", "reboot", "restart", "reset", "pause", "resume", "delete", "rm", "update", "console",
        "explain",
    ];
    for command in of_a_vm {
        for line in [
            format!("plasmavmc vm {command}"),
            format!("plasmavmc vm {command} --timeout 5s"),
        ] {
            let error = Cli::try_parse_from(split(&line)).expect_err(&line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        let nobody = Cli::try_parse_from(["plasmavmc", "vm", command, ""]).expect_err(command);
        assert!(nobody.to_string().contains("give an id, a vmid or a name"), "{nobody}");
    }
}

#[test]
fn what_is_wrong_on_the_command_line_is_a_usage_error_that_says_why() {
    let table = [
        ("plasmavmc vm stop Web/1", "Web/1"),
        ("plasmavmc vm stop 0", "vmid"),
        ("plasmavmc vm stop web extra", "unexpected argument 'extra'"),
        ("plasmavmc vm stop web --forse", "--force"),
        ("plasmavmc vm create web --memory 512", "write 512M or 512G"),
        ("plasmavmc vm create web --disk path=/x", "add size=10G"),
        ("plasmavmc vm create web --nic br0", "\"br0\" is unknown"),
        ("plasmavmc vm create web --initrd /x", "--kernel"),
        ("plasmavmc vm create web --kernel x", "absolute path"),
        ("plasmavmc vm create web --vmid 0", "0 is not in"),
        ("plasmavmc vm create web --agent maybe", "required, optional, none"),
        ("plasmavmc vm list --state up", "pending, starting"),
        ("plasmavmc vm update web --file x --set a=b", "cannot be used with"),
        ("plasmavmc op get 1", "named by its id"),
        ("plasmavmc cluster join --token x", "--via"),
        ("plasmavmc cluster set-timings", "--failover-after"),
        ("plasmavmc cluster set-timings --beat fast", "--beat"),
        ("plasmavmc cluster set-timings --beat 0s", "more than nothing"),
        ("plasmavmc cluster set-timings 4s", "unexpected argument '4s'"),
        ("plasmavmc --timeout 0s vm list", "more than nothing"),
        ("plasmavmc -o xml vm list", "table, json, yaml"),
    ];
    for (line, says) in table {
        let error = Cli::try_parse_from(split(line)).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(says), "{line}: {error}");
    }
}

#[test]
fn global_options_may_stand_anywhere() {
    let cli = parse("plasmavmc vm list -o json --server h1:1,h2:2 --timeout 5s").unwrap();
    assert_eq!(cli.global.servers, ["h1:1", "h2:2"]);
    assert_eq!(
        (cli.global.output, cli.global.timeout),
        (Form::Json, Some(Duration::from_secs(5)))
    );
}
