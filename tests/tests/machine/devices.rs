//! Devices that come and go.

use std::time::Duration;

use plasmavmc_kvm::image::QemuImg;
use plasmavmc_kvm::machine::{MachineError, Plug};
use plasmavmc_tests::vms::{disk, has_booted, micro, paused};
use plasmavmc_types::{DiskFormat, Label, MacAddress, Nic, NicNetwork};

use crate::{SOON, at_a_place, exec};

#[test]
fn disks_come_and_go_and_grow() {
    at_a_place(async |place| {
        let images = QemuImg::find(None).await?;
        let image = place.folder().join("extra.qcow2");
        images
            .create("disks[0].location", &image, DiskFormat::Qcow2, 16)
            .await?;
        let machine = place.launch(micro("plugs", "", |_| {})?).await?;
        machine.cont().await?;
        has_booted(&machine).await?;
        let extra = || disk("extra", &image, DiskFormat::Qcow2, 16).unwrap();
        let add = || Plug::AddDisk {
            disk: extra(),
            images: Vec::new(),
        };
        machine.plug(add()).await?;
        let again = machine.plug(add()).await.unwrap_err();
        assert!(matches!(again, MachineError::DeviceExists { .. }), "{again}");
        let size = async || -> anyhow::Result<String> {
            let cat = exec("/bin/sh", &["-c", "cat /sys/block/vda/size"]);
            Ok(String::from_utf8(machine.agent().exec(&cat, SOON).await?.stdout.bytes)?)
        };
        let is = async |sectors: &str| {
            let deadline = std::time::Instant::now() + SOON;
            while size().await.unwrap().trim() != sectors {
                assert!(std::time::Instant::now() < deadline, "{:?}", size().await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        is("32768").await;
        let name = Label::new("extra")?;
        let shrink = Plug::ResizeDisk {
            name: name.clone(),
            size_mb: 8,
        };
        let refused = machine.plug(shrink).await.unwrap_err();
        assert!(matches!(refused, MachineError::WouldShrink { .. }), "{refused}");
        machine
            .plug(Plug::ResizeDisk {
                name: name.clone(),
                size_mb: 32,
            })
            .await?;
        is("65536").await;
        machine.plug(Plug::RemoveDisk { name: name.clone() }).await?;
        is("").await;
        let missing = machine.plug(Plug::RemoveDisk { name }).await.unwrap_err();
        assert!(matches!(missing, MachineError::NoSuchDevice { .. }), "{missing}");
        machine.kill().await?;
        Ok(())
    });
}

#[test]
fn network_cards_come_and_go() {
    at_a_place(async |place| {
        let machine = place.launch(micro("cards", "", |_| {})?).await?;
        machine.cont().await?;
        has_booted(&machine).await?;
        let mac = MacAddress::new([0x52, 0x54, 0, 1, 2, 3])?;
        let net = Nic::new(Label::new("net0")?, mac, NicNetwork::User);
        machine
            .plug(Plug::AddNic {
                nic: net,
                taps: Vec::new(),
            })
            .await?;
        let has_card = async || {
            let interfaces = machine.agent().network_interfaces(SOON).await.unwrap();
            interfaces
                .iter()
                .any(|card| card.hardware_address.as_deref() == Some("52:54:00:01:02:03"))
        };
        let deadline = std::time::Instant::now() + SOON;
        while !has_card().await {
            assert!(std::time::Instant::now() < deadline, "the guest sees no card");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        machine
            .plug(Plug::RemoveNic {
                name: Label::new("net0")?,
            })
            .await?;
        assert!(!has_card().await);
        machine.kill().await?;
        Ok(())
    });
}

#[test]
fn a_picture_of_the_screen_is_a_png() {
    at_a_place(async |place| {
        let machine = place.launch(paused("screen")?).await?;
        let picture = machine.screenshot().await?;
        assert!(picture.starts_with(b"\x89PNG\r\n"), "{} bytes", picture.len());
        machine.kill().await?;
        Ok(())
    });
}
