//! Tokens for tests, made by the program itself.

use crate::Daemon;

impl Daemon {
    /// Makes a token with the verb, as its owner does; gives its secret.
    pub async fn create_token(&self, name: &str, scopes: &str, limits: &[&str]) -> String {
        let create = self.cli(["token", "create", "--name", name, "--scopes", scopes]);
        let (code, secret, err) = limits.iter().fold(create, |create, limit| create.arg(limit)).run().await;
        assert_eq!(code, 0, "{err}");
        secret.trim_end().to_owned()
    }
}
