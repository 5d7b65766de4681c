//! Which variables of the daemon's environment a child process gets: those that it needs to find programs, the network and an
//! owner's mirror of packages. All others stay here, since any may be a secret.

use std::ffi::{OsStr, OsString};

/// What every child gets.
const OF_ANY: [&str; 10] =
    ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "LD_LIBRARY_PATH"];
/// Which GPUs the trainer sees.
const OF_DEVICES: [&str; 5] = [
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
];
/// How pip and uv reach a registry, their own settings of it included.
const OF_REGISTRIES: [&str; 41] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "SSL_CLIENT_CERT",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NETRC",
    "XDG_CONFIG_HOME",
    "PIP_CONFIG_FILE",
    PIP_INDEX,
    "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS",
    "PIP_NO_INDEX",
    "PIP_TRUSTED_HOST",
    "PIP_CERT",
    "PIP_CLIENT_CERT",
    "PIP_PROXY",
    "PIP_TIMEOUT",
    "PIP_DEFAULT_TIMEOUT",
    "PIP_RETRIES",
    "PIP_KEYRING_PROVIDER",
    "UV_CONFIG_FILE",
    UV_INDEX,
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_NO_INDEX",
    "UV_INDEX_STRATEGY",
    "UV_KEYRING_PROVIDER",
    "UV_INSECURE_HOST",
    "UV_SYSTEM_CERTS",
    "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES",
];
/// The names that uv gives to the credentials of an index begin with this.
const UV_CREDENTIALS: &str = "UV_INDEX_";
const PIP_INDEX: &str = "PIP_INDEX_URL";
const UV_INDEX: &str = "UV_DEFAULT_INDEX";

/// Variables of an environment.
pub(crate) type Variables = Vec<(OsString, OsString)>;

/// The variables for a program that does not leave this machine.
pub(crate) fn for_programs(all: impl Iterator<Item = (OsString, OsString)>) -> Variables {
    all.filter(|(name, _)| is_in(name, &OF_ANY)).collect()
}

/// The variables for a training.
pub(crate) fn for_training(all: impl Iterator<Item = (OsString, OsString)>) -> Variables {
    all.filter(|(name, _)| is_in(name, &OF_ANY) || is_in(name, &OF_DEVICES)).collect()
}

/// The variables for pip and uv. A mirror that is named to pip alone is uv's too.
pub(crate) fn for_installers(all: impl Iterator<Item = (OsString, OsString)>) -> Variables {
    let is_credential = |name: &OsStr| name.to_str().is_some_and(|name| name.starts_with(UV_CREDENTIALS));
    let is_passed = |name: &OsStr| is_in(name, &OF_ANY) || is_in(name, &OF_REGISTRIES) || is_credential(name);
    let mut passed: Variables = all.filter(|(name, _)| is_passed(name)).collect();
    let value = |wanted: &str| passed.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    if let (Some(mirror), None, None) = (value(PIP_INDEX), value(UV_INDEX), value("UV_INDEX_URL")) {
        passed.push((UV_INDEX.into(), mirror));
    }
    passed
}

fn is_in(name: &OsStr, names: &[&str]) -> bool {
    names.iter().any(|known| name == *known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(names: &[&str]) -> Variables {
        names.iter().map(|name| ((*name).into(), format!("value of {name}").into())).collect()
    }

    fn names(variables: Variables) -> Vec<String> {
        variables.into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
    }

    #[test]
    fn a_secret_stays_in_the_daemon() {
        let all = ["PATH", "ARTEL_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "https_proxy", "CUDA_VISIBLE_DEVICES"];
        let all = || variables(&all).into_iter();
        assert_eq!(names(for_programs(all())), ["PATH"]);
        assert_eq!(names(for_training(all())), ["PATH", "CUDA_VISIBLE_DEVICES"]);
        assert_eq!(names(for_installers(all())), ["PATH", "https_proxy"]);
    }

    #[test]
    fn a_mirror_reaches_pip_and_uv() {
        let found = for_installers(variables(&["PIP_INDEX_URL", "UV_INDEX_OURS_PASSWORD", "PIP_TARGET"]).into_iter());
        let mirror: OsString = "value of PIP_INDEX_URL".into();
        assert_eq!(found.last(), Some(&("UV_DEFAULT_INDEX".into(), mirror)));
        assert_eq!(names(found), ["PIP_INDEX_URL", "UV_INDEX_OURS_PASSWORD", "UV_DEFAULT_INDEX"]);
        let named = for_installers(variables(&["PIP_INDEX_URL", "UV_DEFAULT_INDEX"]).into_iter());
        assert_eq!(named[1].1, "value of UV_DEFAULT_INDEX", "what is named to uv is left as it is");
    }
}
