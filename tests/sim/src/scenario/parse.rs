//! The text of a scenario. `tests/scenarios/README.md` is its manual.

use plasmavmc_types::{HaPolicy, HostMode, Leaving, OperationKind, RestartPolicy, Timings, TimingsFields};

use crate::outside::Outside;
use crate::setup::{Delays, Disks, HostSetup, Setup, VmSetup};

/// A line that says nothing to us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Unreadable {
    pub line: usize,
    pub problem: String,
}

/// What must stand in the log next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub from_ms: u64,
    pub to_ms: u64,
    pub text: String,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub setup: Setup,
    pub events: Vec<(u64, Outside)>,
    /// The log before this is not compared.
    pub from_ms: u64,
    pub end_ms: u64,
    pub expected: Vec<Expected>,
    /// The line after which the log begins; what stands before it is kept when a log is written.
    pub head: String,
}

type Said<T> = Result<T, String>;

pub fn parse(text: &str) -> Result<Scenario, Unreadable> {
    let mut reading = Reading::default();
    for (index, line) in text.lines().enumerate() {
        let told = reading.line(line);
        told.map_err(|problem| Unreadable {
            line: index + 1,
            problem,
        })?;
    }
    reading.finish().map_err(|problem| Unreadable { line: 0, problem })
}

#[derive(Debug)]
struct Reading {
    hosts: Vec<HostSetup>,
    vms: Vec<VmSetup>,
    timings: Timings,
    delays: Delays,
    seed: u64,
    events: Vec<(u64, Outside)>,
    from_ms: Option<u64>,
    end_ms: u64,
    expected: Vec<Expected>,
    expects: bool,
    head: String,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            vms: Vec::new(),
            timings: Timings::default(),
            delays: Delays::fixed(),
            seed: 1,
            events: Vec::new(),
            from_ms: None,
            end_ms: 30_000,
            expected: Vec::new(),
            expects: false,
            head: String::new(),
        }
    }
}

impl Reading {
    fn line(&mut self, line: &str) -> Said<()> {
        if !self.expects {
            self.head.push_str(line);
            self.head.push('\n');
        }
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        let Some((first, rest)) = words.split_first() else {
            return Ok(());
        };
        if self.expects {
            return self.expect(line);
        }
        match *first {
            "hosts" => self.hosts.extend(rest.iter().map(|name| HostSetup::new(name))),
            "witness" => {
                let name = rest.first().ok_or("a witness has a name")?;
                self.hosts.push(HostSetup {
                    witness: true,
                    ..HostSetup::new(name)
                });
            }
            "clone" => {
                let [name, "of", of] = rest else {
                    return Err("clone NAME of HOST".to_owned());
                };
                let clone_of = Some(self.host(of)?);
                self.hosts.push(HostSetup {
                    clone_of,
                    voter: false,
                    ..HostSetup::new(name)
                });
            }
            "host" => self.edit_host(rest)?,
            "vm" => self.add_vm(rest)?,
            "timings" => self.timings = self.timings(rest)?,
            "seed" => {
                self.seed = number(rest.first().copied().unwrap_or(""))?;
                self.delays = Delays::random();
            }
            "from" => self.from_ms = Some(time(rest.first().copied().unwrap_or(""))?),
            "end" => self.end_ms = time(rest.first().copied().unwrap_or(""))?,
            "at" => {
                let (at, command) = rest.split_first().ok_or("at TIME COMMAND")?;
                let (at_ms, what) = (time(at)?, self.command(command)?);
                self.events.push((at_ms, what));
            }
            "expect" => self.expects = true,
            other => return Err(format!("{other} is no word of a scenario")),
        }
        Ok(())
    }

    fn expect(&mut self, line: &str) -> Said<()> {
        let line = line.trim();
        let (when, text) = line.split_once(' ').ok_or("TIME-TIME TEXT")?;
        let (from, to) = when.split_once('-').unwrap_or((when, when));
        self.expected.push(Expected {
            from_ms: time(from)?,
            to_ms: time(to)?,
            text: text.trim().to_owned(),
        });
        Ok(())
    }

    fn host(&self, name: &str) -> Said<usize> {
        let found = self.hosts.iter().position(|host| host.name == name);
        found.ok_or_else(|| format!("there is no host {name}"))
    }

    fn vm(&self, name: &str) -> Said<u64> {
        let found = self.vms.iter().position(|vm| vm.name == name);
        found
            .map(|index| index as u64 + 1)
            .ok_or_else(|| format!("there is no VM {name}"))
    }

    fn edit_host(&mut self, words: &[&str]) -> Said<()> {
        let (name, rest) = words.split_first().ok_or("host NAME KEY=VALUE")?;
        let index = self.host(name)?;
        for word in rest {
            let (key, value) = word.split_once('=').ok_or("KEY=VALUE")?;
            let host = &mut self.hosts[index];
            match key {
                "memory" => host.memory_mb = number(value)?,
                "pool" => host.shared_pool = value == "shared",
                "rate" => host.rate_ppm = number(value)?,
                "clock" => host.wall_skew_ms = time(value)?,
                other => return Err(format!("a host has no {other}")),
            }
        }
        Ok(())
    }

    fn add_vm(&mut self, words: &[&str]) -> Said<()> {
        let (name, rest) = words.split_first().ok_or("vm NAME KEY=VALUE")?;
        let mut vm = VmSetup::new(name);
        vm.created_ms = 2500;
        let mut is_created = true;
        for word in rest {
            let (key, value) = word.split_once('=').ok_or("KEY=VALUE")?;
            match key {
                "memory" => vm.memory_mb = number(value)?,
                "priority" => vm.priority = u8::try_from(number(value)?).map_err(|_| "a priority is at most 255")?,
                "disks" => vm.disks = disks(value)?,
                "ha" => vm.ha = ha(value)?,
                "on" => vm.only_on = value.split(',').map(str::to_owned).collect(),
                "apart" => vm.apart_from = value.split(',').map(|name| self.vm(name)).collect::<Said<_>>()?,
                "together" => vm.together_with = value.split(',').map(|name| self.vm(name)).collect::<Said<_>>()?,
                "rather-on" => vm.prefer_on = value.split(',').map(str::to_owned).collect(),
                "rather-apart" => {
                    vm.prefer_apart_from = value.split(',').map(|name| self.vm(name)).collect::<Said<_>>()?;
                }
                "after" => vm.after = Some(self.vm(value)?),
                "restart" if value == "never" => vm.restart = RestartPolicy::Never,
                "restart" => {
                    let tries = u32::try_from(number(value)?).map_err(|_| "too many tries")?;
                    vm.restart = RestartPolicy::OnCrash { tries, window_s: 600 };
                }
                "created" if value == "no" => is_created = false,
                "created" => vm.created_ms = time(value)?,
                other => return Err(format!("a VM has no {other}")),
            }
        }
        let created_ms = vm.created_ms;
        self.vms.push(vm);
        if is_created {
            self.events.push((created_ms, Outside::Create(self.vms.len() as u64)));
        }
        Ok(())
    }

    /// What is not said stays as the cluster began.
    fn timings(&self, words: &[&str]) -> Said<Timings> {
        let mut fields: TimingsFields = *self.timings;
        for word in words {
            let (key, value) = word.split_once('=').ok_or("KEY=VALUE")?;
            match key {
                "beat" => fields.beat_ms = time(value)?,
                "freeze" => fields.freeze_after_ms = time(value)?,
                "failover" => fields.failover_after_ms = time(value)?,
                other => return Err(format!("there is no timing {other}")),
            }
        }
        Timings::new(fields).map_err(|invalid| invalid.to_string())
    }

    fn command(&self, words: &[&str]) -> Said<Outside> {
        let host = |name: &&str| self.host(name);
        let vm = |name: &&str| self.vm(name);
        let force = words.last() == Some(&"force");
        Ok(match words {
            ["cut", name] => Outside::Cut(host(name)?),
            ["join", name] => Outside::Join(host(name)?),
            ["cut-one-way", from, to] => Outside::CutOneWay(host(from)?, host(to)?),
            ["mend", from, to] => Outside::Mend(host(from)?, host(to)?),
            ["cut-all"] => Outside::CutAll,
            ["mend-all"] => Outside::MendAll,
            ["power-off", name] => Outside::PowerOff(host(name)?),
            ["power-on", name] => Outside::PowerOn(host(name)?, 2000),
            ["power-on", name, after] => Outside::PowerOn(host(name)?, time(after)?),
            ["kill-server", name] => Outside::KillServer(host(name)?),
            ["start-server", name] => Outside::StartServer(host(name)?),
            ["kill-guard", name] => Outside::KillGuard(host(name)?),
            ["pause", name] if self.host(name).is_ok() => Outside::Pause(host(name)?),
            ["resume", name] if self.host(name).is_ok() => Outside::Resume(host(name)?),
            ["slow-store", name, by] => Outside::Slow(host(name)?, time(by)?),
            ["lag", name, by] => Outside::Lag(host(name)?, time(by)?),
            ["read-only", name] => Outside::ReadOnly(host(name)?, true),
            ["writable", name] => Outside::ReadOnly(host(name)?, false),
            ["lead", name] => Outside::Lead(host(name)?),
            ["reseed", name] => Outside::Reseed(host(name)?),
            ["take-out", name] => Outside::TakeOut(host(name)?),
            ["drain", name] => Outside::Mode(host(name)?, HostMode::Draining),
            ["maintenance", name] => Outside::Mode(host(name)?, HostMode::Maintenance),
            ["active", name] => Outside::Mode(host(name)?, HostMode::Active),
            ["depart", name] => Outside::Depart(host(name)?, Leaving::Move),
            ["depart", name, "stay"] => Outside::Depart(host(name)?, Leaving::Stay),
            ["create", name] => Outside::Create(vm(name)?),
            ["start", name] => Outside::Ask(vm(name)?, OperationKind::Start),
            ["stop", name, ..] => Outside::Ask(vm(name)?, OperationKind::Stop { force }),
            ["restart", name, ..] => Outside::Ask(vm(name)?, OperationKind::Restart { force }),
            ["pause", name] => Outside::Ask(vm(name)?, OperationKind::Pause),
            ["resume", name] => Outside::Ask(vm(name)?, OperationKind::Resume),
            ["delete", name, ..] => Outside::Delete(vm(name)?, force),
            ["ha", name, policy] => Outside::Ha(vm(name)?, ha(policy)?),
            ["guest-dies", name] => Outside::GuestDies(vm(name)?),
            ["guest-powers-off", name] => Outside::GuestPowersOff(vm(name)?),
            ["broken", name, on] => Outside::Broken(vm(name)?, host(on)?, true),
            ["mended", name, on] => Outside::Broken(vm(name)?, host(on)?, false),
            ["timings", changed @ ..] => Outside::Timings(self.timings(changed)?),
            ["heal"] => Outside::Heal,
            other => return Err(format!("{} is no command", other.join(" "))),
        })
    }

    fn finish(self) -> Said<Scenario> {
        if self.hosts.is_empty() {
            return Err("there are no hosts".to_owned());
        }
        let is_early = |(_, what): &&(u64, Outside)| !matches!(what, Outside::Create(_));
        let first = self.events.iter().filter(is_early).map(|(at_ms, _)| *at_ms).min();
        Ok(Scenario {
            setup: Setup {
                seed: self.seed,
                hosts: self.hosts,
                vms: self.vms,
                timings: self.timings,
                delays: self.delays,
                breaks: crate::breaks::Breaks::default(),
                heal_at_ms: self.end_ms,
                rest_within_ms: 0,
            },
            from_ms: self.from_ms.or(first).unwrap_or(0),
            events: self.events,
            end_ms: self.end_ms,
            expected: self.expected,
            head: self.head,
        })
    }
}

fn number(text: &str) -> Said<u64> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

/// `5s`, `1.5s`, `300ms`; without a unit seconds.
fn time(text: &str) -> Said<u64> {
    if let Some(ms) = text.strip_suffix("ms") {
        return number(ms);
    }
    let text = text.strip_suffix('s').unwrap_or(text);
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let part = format!("{part:0<3}");
    Ok(number(whole)? * 1000 + number(part.get(..3).unwrap_or("0"))?)
}

fn disks(text: &str) -> Said<Disks> {
    match text {
        "none" => Ok(Disks::None),
        "shared" => Ok(Disks::Shared),
        "local" => Ok(Disks::Local),
        other => Err(format!("disks are none, shared or local, not {other}")),
    }
}

fn ha(text: &str) -> Said<HaPolicy> {
    match text {
        "auto" => Ok(HaPolicy::Auto),
        "on" => Ok(HaPolicy::On),
        "off" => Ok(HaPolicy::Off),
        other => Err(format!("ha is auto, on or off, not {other}")),
    }
}
