//! What a host is called that was given no name.

/// The name of this machine as far as it can be a host's name.
pub fn own_name() -> String {
    let first = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let first = first.trim().to_lowercase();
    let first = first.split('.').next().unwrap_or_default();
    let fit: String = first
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let fit = fit.trim_matches('-');
    let named = if fit.starts_with(|c: char| c.is_ascii_lowercase()) {
        fit.to_owned()
    } else {
        format!("host-{fit}").trim_end_matches('-').to_owned()
    };
    named
        .chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches('-')
        .to_owned()
}
