//! Waiting for what must happen.

use std::time::Duration;

/// No test waits longer.
const UNTIL_TIMEOUT: Duration = Duration::from_secs(180);
/// How often it is looked for.
const UNTIL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until this holds.
///
/// # Panics
/// It never does.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(UNTIL_INTERVAL).await;
        }
    };
    tokio::time::timeout(UNTIL_TIMEOUT, held).await.unwrap_or_else(|_| panic!("never: {what}"));
}
