//! `artel fetch`: what models and adapters have on a hub, fetched without a daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use artel_roles::hf_uri::HfUri;
use artel_roles::{Catalog, nearest};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::args::{self, Global};
use crate::client::output::Output;
use crate::client::render::page::{BAD, GOOD};
use crate::client::render::time::bytes;
use crate::hub::{Going, Hub};
use crate::journal::exit;
use crate::serve::config::Config;

/// Fetches them one after the other; exit code 1 if one of them cannot be.
pub(crate) fn run(fetch: &args::Fetch, global: &Global) -> ExitCode {
    exit(fetch_all(fetch, &mut Output::new(global)), global)
}

fn fetch_all(fetch: &args::Fetch, output: &mut Output) -> Result<bool> {
    let config = Config::of(&fetch.setup, None)?;
    let catalog = Catalog::load(config.catalog.as_deref())
        .map_err(|problems| anyhow::anyhow!("the catalog is not valid:\n{problems}"))?;
    let wanted = wanted(&catalog, &fetch.names)?;
    if wanted.is_empty() {
        output.render(|page| {
            page.put("nothing to fetch: no model and no adapter has an `hf:` address").end();
        })?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    let hub = Hub::new(config.crew.models_dir, config.offline);
    let mut all = true;
    for (address, sha256) in &wanted {
        let fetched = runtime.block_on(one(&hub, address, sha256.as_deref()));
        all &= fetched.is_ok();
        tell(address, &fetched, output)?;
    }
    Ok(all)
}

/// What is to be fetched, and the hash that the YAML states.
fn wanted(catalog: &Catalog, names: &[String]) -> Result<BTreeMap<HfUri, Option<String>>> {
    if let Some(name) = names.iter().find(|name| catalog.model(name).is_none()) {
        let meant = nearest(name, catalog.models().keys().map(|name| name.as_str()));
        bail!("there is no model `{name}`{}", meant.map(|name| format!("; is `{name}` meant?")).unwrap_or_default());
    }
    let is_wanted = |model: &str| names.is_empty() || names.iter().any(|name| name == model);
    let mut wanted = BTreeMap::new();
    for role in catalog.roles().values().filter(|role| is_wanted(role.model.as_str())) {
        let address = role.adapter.as_ref().and_then(|adapter| adapter.file.uri());
        wanted.extend(address.map(|address| (address.clone(), None)));
    }
    for model in catalog.models().values().filter(|model| is_wanted(model.name.as_str())) {
        wanted.extend(model.file.uri().map(|address| (address.clone(), model.sha256.clone())));
    }
    Ok(wanted)
}

async fn one(hub: &Hub, address: &HfUri, sha256: Option<&str>) -> Result<PathBuf, String> {
    let bar = bar(address);
    let progress = |going: &Going| {
        if let Some(size) = going.size {
            bar.set_length(size);
        }
        bar.set_position(going.done);
    };
    let fetched = hub.get(address, sha256, progress).await;
    bar.finish_and_clear();
    fetched
}

/// A bar on the terminal, if there is one.
fn bar(address: &HfUri) -> ProgressBar {
    const BAR: &str = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
    let bar = ProgressBar::no_length().with_message(address.to_string());
    bar.set_style(ProgressStyle::with_template(BAR).expect("the template is sound"));
    bar
}

fn tell(address: &HfUri, fetched: &Result<PathBuf, String>, output: &mut Output) -> Result<()> {
    let size = |path: &Path| path.metadata().map_or(0, |file| file.len());
    let address = address.to_string();
    let json = match fetched {
        Ok(path) => json!({"address": address, "path": path, "bytes": size(path)}),
        Err(reason) => json!({"address": address, "error": reason}),
    };
    output.show(&json, |page| {
        match fetched {
            Ok(path) => {
                page.paint(GOOD, "here").put(format_args!(": {address}, {}, {}", bytes(size(path)), path.display()))
            }
            Err(reason) => page.paint(BAD, "not fetched").put(format_args!(": {reason}")),
        };
        page.end();
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use artel_roles::{YamlSource, shipped};

    use super::*;

    fn catalog() -> Catalog {
        let text = "model: phi\nfile: hf:org/phi/phi.gguf\nsha256: ".to_owned()
            + &"ab".repeat(32)
            + "\n---\nrole: poet\ndescription: D.\nmodel: smollm2\nadapter: hf:org/lora@v2/poet.gguf\nprompt: P.\n";
        let own = YamlSource { path: "own.yaml".to_owned(), dir: None, text };
        Catalog::parse(vec![shipped::sources(), vec![own]]).unwrap()
    }

    #[test]
    fn what_the_catalog_names_is_fetched() {
        let catalog = catalog();
        let names = |names: &[&str]| -> Result<Vec<String>> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Ok(wanted(&catalog, &names)?.keys().map(ToString::to_string).collect())
        };
        assert_eq!(names(&[]).unwrap(), ["hf:org/lora@v2/poet.gguf", "hf:org/phi/phi.gguf"]);
        assert_eq!(names(&["smollm2"]).unwrap(), ["hf:org/lora@v2/poet.gguf"]);
        assert_eq!(names(&["phi"]).unwrap(), ["hf:org/phi/phi.gguf"]);
        assert!(names(&["phy"]).unwrap_err().to_string().contains("is `phi` meant?"));
        assert_eq!(wanted(&catalog, &["phi".to_owned()]).unwrap().into_values().next().unwrap(), Some("ab".repeat(32)));
    }
}
