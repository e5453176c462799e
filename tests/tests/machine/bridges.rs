//! Cards on a bridge: guests that reach each other through taps, and taps that end with their QEMU.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use plasmavmc_kvm::machine::{Machine, Plug, launch};
use plasmavmc_kvm::qga::ExecEnd;
use plasmavmc_kvm::tap::{Networks, TapError, open_nic, open_taps, tap_name};
use plasmavmc_tests::hosts::{DiskPlan, Lab, LabPlan};
use plasmavmc_tests::vms::{Place, boot_id, has_booted, micro};
use plasmavmc_types::{BridgeName, Label, MacAddress, Nic, NicNetwork, VmId, VmSpec};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use uuid::Uuid;

use crate::{SOON, STOP, at_a_place, exec};

const BRIDGE: &str = "br0";
const MTU: &str = "1400";
/// Guests under TCG, a moment after they have booted.
const REACHED: Duration = Duration::from_secs(60);

/// A host with a bridge, in a network of its own.
struct Wired(Lab);

impl Wired {
    fn new() -> Result<Self> {
        let plan = LabPlan {
            hosts: 1,
            disk: DiskPlan::Limited { mib: 8 },
        };
        let wired = Self(Lab::build(plan)?);
        wired.ip(&["link", "add", BRIDGE, "mtu", MTU, "type", "bridge"])?;
        wired.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(wired)
    }

    fn here<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        Ok(self.0[0].on_network(work)?)
    }

    fn ip(&self, args: &[&str]) -> Result<String> {
        let output = self.here(|| Command::new("ip").args(args).output())??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "ip {args:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn has(&self, interface: &str) -> bool {
        self.ip(&["link", "show", "dev", interface]).is_ok()
    }

    async fn loses(&self, interface: &str) {
        let deadline = Instant::now() + SOON;
        while self.has(interface) {
            assert!(Instant::now() < deadline, "{interface} stays");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn launch(&self, place: &Place, id: VmId, spec: VmSpec) -> Result<Machine> {
        let taps = self.here(|| open_taps(&spec, id, &networks()))??;
        let mut plan = place.plan(id, spec);
        plan.taps = taps;
        Ok(launch(place.host(), plan).await?)
    }
}

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn networks() -> Networks {
    Networks::from([(label("blue"), BridgeName::new(BRIDGE).unwrap())])
}

fn on_bridge(name: &str, last: u8) -> Nic {
    let mac = MacAddress::new([0x52, 0x54, 0, 0, 0x10, last]).unwrap();
    Nic::new(label(name), mac, NicNetwork::Bridge(BridgeName::new(BRIDGE).unwrap()))
}

fn named(name: &str, last: u8) -> Nic {
    Nic {
        network: NicNetwork::Named(label("blue")),
        ..on_bridge(name, last)
    }
}

/// Until one guest reads from the other what that one serves. Not with wget: it asks for the port of "http" by
/// name, which a static busybox does not survive.
async fn reads(from: &Machine, address: &str, expected: &str) -> Result<()> {
    let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} 80");
    let fetch = exec("/bin/sh", &["-c", &script]);
    let deadline = Instant::now() + REACHED;
    loop {
        let outcome = from.agent().exec(&fetch, SOON).await?;
        let read = String::from_utf8_lossy(&outcome.stdout.bytes).into_owned();
        if let Some((_, content)) = read.split_once("\r\n\r\n") {
            assert_eq!(content.trim(), expected);
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{address} is not reached: {outcome:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn shell(machine: &Machine, script: &str) -> Result<()> {
    let outcome = machine.agent().exec(&exec("/bin/sh", &["-c", script]), SOON).await?;
    ensure!(outcome.end == ExecEnd::Exited(0), "{script}: {outcome:?}");
    Ok(())
}

#[test]
fn guests_on_a_bridge_reach_each_other_also_through_a_card_plugged_in_later_and_no_tap_is_left() {
    at_a_place(async |place| {
        let wired = Wired::new()?;
        let (left_id, right_id) = (VmId::from_uuid(Uuid::new_v4()), VmId::from_uuid(Uuid::new_v4()));
        let (left_tap, right_tap) = (tap_name(left_id, &label("net0")), tap_name(right_id, &label("net0")));
        let spec = micro("left", "micro.ip=10.9.0.1/24 micro.do=serve:80", |fields| {
            fields.nics.push(on_bridge("net0", 1));
        })?;
        let left = wired.launch(&place, left_id, spec).await?;
        let spec = micro("right", "micro.ip=10.9.0.2/24", |fields| {
            let mut card = named("net0", 2);
            card.queues = 2;
            fields.nics.push(card);
        })?;
        let right = wired.launch(&place, right_id, spec).await?;
        for tap in [&left_tap, &right_tap] {
            let shown = wired.ip(&["link", "show", "dev", tap])?;
            assert!(
                shown.contains("master br0") && shown.contains("mtu 1400") && shown.contains("link/ether fe:54:"),
                "{shown}"
            );
        }
        left.cont().await?;
        right.cont().await?;
        has_booted(&left).await?;
        has_booted(&right).await?;
        let served = boot_id(&left).await?;
        reads(&right, "10.9.0.1", &served).await?;

        let card = on_bridge("net1", 3);
        let taps = wired.here(|| open_nic(&card, left_id, &networks()))??;
        let extra_tap = tap_name(left_id, &label("net1"));
        left.plug(Plug::AddNic { nic: card, taps }).await?;
        assert!(wired.has(&extra_tap));
        // The first card must not do the new one's work.
        let over = "until [ -e /sys/class/net/eth1 ]; do usleep 20000; done; ip link set eth0 down; \
                    ip addr add 10.10.0.1/24 dev eth1 && ip link set eth1 up";
        shell(&left, over).await?;
        shell(&right, "ip addr add 10.10.0.2/24 dev eth0").await?;
        reads(&right, "10.10.0.1", &served).await?;

        left.plug(Plug::RemoveNic { name: label("net1") }).await?;
        wired.loses(&extra_tap).await;
        left.kill().await?;
        wired.loses(&left_tap).await;
        assert!(wired.has(&right_tap));
        right.stop(STOP).await?;
        wired.loses(&right_tap).await;
        Ok(())
    });
}

#[test]
fn a_tap_that_cannot_be_had_says_why_and_leaves_nothing() {
    let wired = Wired::new().unwrap();
    let vm = VmId::from_uuid(Uuid::new_v4());
    let open = |nic: &Nic| wired.here(|| open_nic(nic, vm, &networks())).unwrap();
    for queues in [1, 4] {
        let mut card = on_bridge("net0", 1);
        card.queues = queues;
        let tap = tap_name(vm, &card.name);
        let taps = open(&card).unwrap();
        assert_eq!(taps.len(), usize::from(queues));
        let error = open(&card).unwrap_err();
        assert!(matches!(error, TapError::NameTaken { .. }), "{error}");
        assert!(wired.has(&tap), "the failed try has taken the tap away");
        drop(taps);
        assert!(!wired.has(&tap), "a tap without descriptors stays");
    }

    let on = |bridge: &str| Nic {
        network: NicNetwork::Bridge(BridgeName::new(bridge).unwrap()),
        ..on_bridge("net0", 1)
    };
    let error = open(&on("br7")).unwrap_err();
    assert!(error.to_string().contains("ip link add br7 type bridge"), "{error}");
    for other in ["lo", "eth0"] {
        let error = open(&on(other)).unwrap_err();
        assert!(matches!(error, TapError::NotABridge { .. }), "{other}: {error:?}");
    }

    let without_right = || -> Result<TapError> {
        let mut sets = capabilities(None)?;
        sets.effective -= CapabilitySet::NET_ADMIN;
        set_capabilities(None, sets)?;
        open_nic(&on_bridge("net0", 1), vm, &networks())
            .err()
            .context("it was allowed")
    };
    let error = wired.here(without_right).unwrap().unwrap();
    assert!(matches!(error, TapError::NotPermitted { .. }), "{error:?}");
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    assert!(
        !wired.has(&tap_name(vm, &label("net0"))),
        "a failed try has left its tap"
    );
}
