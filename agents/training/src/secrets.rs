//! Keys and passwords in texts: a model that learns them tells them.

/// A key that is known by its first characters.
struct KeyForm {
    what: &'static str,
    prefix: &'static str,
    /// The characters behind the prefix that it has at least.
    min_chars: usize,
}

const fn form(what: &'static str, prefix: &'static str, min_chars: usize) -> KeyForm {
    KeyForm { what, prefix, min_chars }
}

/// As their issuers document them. A key without a form of its own cannot be told from other texts.
const FORMS: [KeyForm; 21] = [
    form("an access key of AWS", "AKIA", 16),
    form("a temporary access key of AWS", "ASIA", 16),
    form("a token of GitHub", "ghp_", 36),
    form("a token of GitHub", "gho_", 36),
    form("a token of GitHub", "ghs_", 36),
    form("a token of GitHub", "github_pat_", 22),
    form("a token of GitLab", "glpat-", 20),
    form("a token of Hugging Face", "hf_", 30),
    form("a key of Anthropic", "sk-ant-", 20),
    form("a key of OpenAI", "sk-proj-", 20),
    form("a key of OpenAI", "sk-", 32),
    form("a key of Stripe", "sk_live_", 16),
    form("a key of Stripe", "rk_live_", 16),
    form("a token of Slack", "xoxb-", 20),
    form("a token of Slack", "xoxp-", 20),
    form("a key of Google", "AIza", 35),
    form("a token of npm", "npm_", 36),
    form("a token of PyPI", "pypi-", 40),
    form("a key of SendGrid", "SG.", 40),
    form("a token of DigitalOcean", "dop_v1_", 40),
    form("a token of this daemon", "artel_", 20),
];

/// The first key or password of a text, in words that do not repeat it.
pub(crate) fn secret_in(text: &str) -> Option<&'static str> {
    let form = FORMS.iter().find(|form| has_key(text, form)).map(|form| form.what);
    form.or_else(|| has_private_key(text).then_some("a private key"))
        .or_else(|| has_web_token(text).then_some("a JSON web token"))
        .or_else(|| has_url_password(text).then_some("a URL with a password"))
}

fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn has_key(text: &str, form: &KeyForm) -> bool {
    text.match_indices(form.prefix).any(|(at, prefix)| {
        let is_start = !text[..at].ends_with(is_key_char);
        let rest = &text[at + prefix.len()..];
        let key = &rest[..rest.find(|c| !is_key_char(c)).unwrap_or(rest.len())];
        // A word in the place of a key is no key: `sk-your-key-goes-here-please-do-not-forget`.
        is_start && key.len() >= form.min_chars && key.contains(|c: char| c.is_ascii_digit())
    })
}

fn has_private_key(text: &str) -> bool {
    text.match_indices("-----BEGIN ").any(|(at, begin)| {
        let line = text[at + begin.len()..].lines().next().unwrap_or_default();
        line.ends_with("PRIVATE KEY-----")
    })
}

/// Three parts in base64 of which the first two are JSON objects.
fn has_web_token(text: &str) -> bool {
    text.split(|c: char| !is_key_char(c)).any(|word| {
        let parts: Vec<&str> = word.split('.').collect();
        matches!(parts[..], [head, claims, signature] if head.starts_with("eyJ") && claims.starts_with("eyJ") && signature.len() >= 20)
    })
}

fn has_url_password(text: &str) -> bool {
    text.match_indices("://").any(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        let host = &rest[..rest.find(|c: char| c.is_whitespace() || "/?#\"'<>\\`".contains(c)).unwrap_or(rest.len())];
        let credentials = host.rsplit_once('@').and_then(|(credentials, _)| credentials.split_once(':'));
        credentials.is_some_and(|(name, password)| !name.contains(['[', ',']) && !password.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_and_what_looks_like_them_is_not() {
        // Put together here, so that no scanner of sources takes them for keys.
        let digits = "0123456789".repeat(6);
        for (prefix, what) in [
            ("AKIA", "an access key of AWS"),
            ("ghp_", "a token of GitHub"),
            ("hf_", "a token of Hugging Face"),
            ("sk-ant-", "a key of Anthropic"),
            ("sk-", "a key of OpenAI"),
        ] {
            assert_eq!(secret_in(&format!("My key is ({prefix}{digits}), thanks.")), Some(what), "{prefix}");
            assert_eq!(secret_in(&format!("No key: x{prefix}{digits}")), None, "{prefix} within a word");
            assert_eq!(secret_in(&format!("{prefix}0123 is short")), None, "{prefix}");
        }
        let web_token = format!("eyJ{digits}.eyJ{digits}.{digits}");
        let pem = ["-----BEGIN RSA", "PRIVATE KEY-----\nabc"].join(" ");
        let found = [web_token.as_str(), &pem, "postgres://ann:pass@host/db"].map(secret_in);
        assert_eq!(found, [Some("a JSON web token"), Some("a private key"), Some("a URL with a password")]);
        for harmless in [
            "sk-your-key-goes-here-and-it-is-a-long-one",
            "http://host:80/a@b",
            "{\"site\":\"https://shop.example\",\"mail\":\"ann@shop.example\"}",
            "https://h:8080?x=a@b",
            "mailto:a@b",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert_eq!(secret_in(harmless), None, "{harmless}");
        }
    }
}
