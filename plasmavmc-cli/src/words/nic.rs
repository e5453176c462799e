//! Network cards: `user`, `bridge=br0,mac=52:54:00:00:00:01`, `network=lan`.

use plasmavmc_proto::api::{Nic, NicModel, nic};
use plasmavmc_types::MacAddress;

use super::pairs::Pairs;

const MODELS: &[(&str, NicModel)] = &[("virtio", NicModel::Virtio), ("e1000", NicModel::E1000)];

/// Reads one `--nic`. Its name is given where the list is known.
pub fn parse_nic(text: &str) -> Result<Nic, String> {
    let mut pairs = Pairs::parse(
        text,
        &["bridge", "network", "mac", "model", "queues", "name"],
        &["user"],
    )?;
    let is_user = pairs.take_flag("user")?;
    let network = match (is_user, pairs.take("bridge"), pairs.take("network")) {
        (true, None, None) => nic::Network::User(true),
        (false, Some(bridge), None) => nic::Network::Bridge(bridge.to_owned()),
        (false, None, Some(network)) => nic::Network::Named(network.to_owned()),
        (false, None, None) => {
            return Err("it is plugged into nothing; add user, bridge=br0 or network=lan".to_owned());
        }
        _ => return Err("it is plugged into more than one of user, bridge and network".to_owned()),
    };
    let mac = pairs.take("mac").map(str::parse::<MacAddress>).transpose();
    let queues = pairs
        .take("queues")
        .map(|text| (text, text.parse::<u32>()))
        .unwrap_or(("", Ok(0)));
    Ok(Nic {
        name: pairs.take("name").unwrap_or_default().to_owned(),
        mac: mac
            .map_err(|invalid| invalid.to_string())?
            .map(String::from)
            .unwrap_or_default(),
        network: Some(network),
        model: pairs.take_word("model", MODELS)?.unwrap_or_default().into(),
        queues: queues
            .1
            .map_err(|_| format!("queues is {:?}; a number is allowed", queues.0))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_read() {
        let nic = |network| Nic {
            network: Some(network),
            ..Nic::default()
        };
        let table = [
            ("user", nic(nic::Network::User(true))),
            ("network=lan", nic(nic::Network::Named("lan".to_owned()))),
            (
                "bridge=br0,mac=52:54:00:AB:00:01",
                Nic {
                    mac: "52:54:00:ab:00:01".to_owned(),
                    ..nic(nic::Network::Bridge("br0".to_owned()))
                },
            ),
            (
                "bridge=br0,queues=4,name=front,model=virtio",
                Nic {
                    queues: 4,
                    name: "front".to_owned(),
                    ..nic(nic::Network::Bridge("br0".to_owned()))
                },
            ),
            (
                "user,model=e1000",
                Nic {
                    model: NicModel::E1000.into(),
                    ..nic(nic::Network::User(true))
                },
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse_nic(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_card_is_told_why() {
        let table = [
            ("br0", "\"br0\" is unknown; bridge=, network="),
            ("bridge", "bridge has no value; write bridge=..."),
            (
                "model=virtio",
                "plugged into nothing; add user, bridge=br0 or network=lan",
            ),
            ("user=false", "plugged into nothing"),
            ("user,bridge=br0", "more than one of user, bridge and network"),
            ("bridge=br0,network=lan", "more than one of"),
            ("bridge=br0,mac=1", "\"1\" is not of the form 52:54:00:12:34:56"),
            ("bridge=br0,mac=01:00:00:00:00:00", "means a group, not one card"),
            ("user,model=ne2k", "model is \"ne2k\"; virtio, e1000 are allowed"),
            ("bridge=br0,queues=many", "queues is \"many\"; a number is allowed"),
        ];
        for (text, says) in table {
            let error = parse_nic(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
