//! How a caller names a VM: by id, number or name, wherever one is asked for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Invalid, VmId, VmName, VmNumber};

/// A VM as a caller wrote it. The three forms never overlap, so a text means one VM or none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum VmRef {
    Id(VmId),
    Number(VmNumber),
    Name(VmName),
}

impl FromStr for VmRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::whole(
                "VM reference",
                "no VM is named: give an id, a vmid or a name",
            ));
        }
        if let Ok(uuid) = Uuid::try_parse(text) {
            return Ok(VmRef::Id(VmId::from_uuid(uuid)));
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text
                .parse()
                .map_err(|_| Invalid::whole("vmid", format!("{text} is too large")))?;
            return VmNumber::new(number).map(VmRef::Number);
        }
        VmName::new(text).map(VmRef::Name)
    }
}

impl TryFrom<String> for VmRef {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<VmRef> for String {
    fn from(reference: VmRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for VmRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VmRef::Id(id) => id.fmt(f),
            VmRef::Number(number) => number.fmt(f),
            VmRef::Name(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_form_is_told_from_the_others() {
        let id = "abcdef01-0000-4000-8000-000000000001";
        assert!(matches!(id.parse(), Ok(VmRef::Id(_))));
        assert!(matches!("101".parse(), Ok(VmRef::Number(number)) if number.get() == 101));
        assert!(matches!("web-1".parse(), Ok(VmRef::Name(name)) if name.as_str() == "web-1"));
    }

    #[test]
    fn what_names_no_vm_is_refused() {
        for bad in ["", "0", "99999999999999999999", "-5", "Web 1"] {
            assert!(bad.parse::<VmRef>().is_err(), "{bad}");
        }
        let nothing = "".parse::<VmRef>().unwrap_err().to_string();
        assert!(nothing.contains("give an id, a vmid or a name"), "{nothing}");
    }

    proptest! {
        #[test]
        fn a_name_or_number_always_refers_to_itself(text in "[a-z][a-z0-9]{0,40}", number in 1u32..=VmNumber::MAX) {
            if let Ok(name) = VmName::new(text) {
                prop_assert_eq!(name.to_string().parse(), Ok(VmRef::Name(name)));
            }
            let number = VmNumber::new(number).unwrap();
            prop_assert_eq!(number.to_string().parse(), Ok(VmRef::Number(number)));
        }

        #[test]
        fn an_id_always_refers_to_itself(bits in any::<u128>()) {
            let id = VmId::from_uuid(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse(), Ok(VmRef::Id(id)));
        }
    }
}
