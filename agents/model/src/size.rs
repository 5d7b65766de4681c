//! Sizes as text for humans.

/// A size in decimal units: `512 B`, `98.4 MB`, `1.2 GB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut size, mut unit) = (bytes as f64 / 1000.0, 0);
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1$} {0}", UNITS[unit], usize::from(size < 99.95))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_use_the_largest_unit() {
        let shown = [0, 999, 1000, 98_362_432, 999_999_999, 1_234_567_890, 9_900_000_000_000_000].map(format_bytes);
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "98.4 MB", "1.0 GB", "1.2 GB", "9900 TB"]);
    }
}
