//! `artel fetch`: downloads the files of models and adapters from a hub, without a daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use artel_args::{FetchArgs, GlobalArgs};
use artel_hub::{DownloadProgress, HfDownloader};
use artel_model::{PieceHashes, piece_paths};
use artel_roles::hf_uri::HfUri;
use artel_roles::{Catalog, DefinitionKind, nearest};
use artel_terminal::{BAD, CommandOutput, GOOD, bytes};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::journal::exit_code;
use crate::serve::config::Config;

/// Downloads the files one after the other; exit code 1 if one of them fails.
pub(crate) fn run(fetch: &FetchArgs, global: &GlobalArgs) -> ExitCode {
    exit_code(fetch_all(fetch, &mut CommandOutput::new(global)), global)
}

fn fetch_all(fetch: &FetchArgs, output: &mut CommandOutput) -> Result<bool> {
    let config = Config::of(&fetch.daemon, None)?;
    let catalog =
        Catalog::load(config.catalog.as_deref()).map_err(|problems| anyhow!("the catalog is invalid:\n{problems}"))?;
    let wanted = wanted(&catalog, &fetch.names)?;
    if wanted.is_empty() {
        output.render(|out| {
            out.push("nothing to fetch: no model and no adapter has an `hf:` address").newline();
        })?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("failed to start the runtime")?;
    // It may be the first program that writes there; a user's own directory of models stays as it is.
    artel_journal::prepare(&config.data).map_err(|e| anyhow!("{e}"))?;
    let downloader =
        HfDownloader::new(config.runtime.models_dir, config.offline).with_token_file(config.hf_token_file.as_deref());
    let mut all_fetched = true;
    for (address, sha256) in &wanted {
        let fetched = runtime.block_on(download(&downloader, address, sha256.as_ref()));
        all_fetched &= fetched.is_ok();
        show(address, &fetched, output)?;
    }
    Ok(all_fetched)
}

/// The addresses to download, each with the hash that the YAML states.
fn wanted(catalog: &Catalog, names: &[String]) -> Result<BTreeMap<HfUri, Option<PieceHashes>>> {
    if let Some(name) = names.iter().find(|name| catalog.model(name).is_none() && catalog.adapter(name).is_none()) {
        let models = catalog.models().keys().map(|name| name.as_str());
        let near = nearest(name, models.chain(catalog.adapters().keys().map(|name| name.as_str())));
        let others = catalog.other_kinds(name, &[DefinitionKind::Model, DefinitionKind::Adapter]);
        bail!(
            "there is no model or adapter `{name}`{}{}",
            others.map(|others| format!(", but {others} of this name")).unwrap_or_default(),
            near.map(|name| format!("; is `{name}` meant?")).unwrap_or_default()
        );
    }
    let is_wanted = |model: &str| names.is_empty() || names.iter().any(|name| name == model);
    let mut wanted: BTreeMap<HfUri, Option<PieceHashes>> = BTreeMap::new();
    let of_roles = catalog.roles().values().filter(|role| is_wanted(role.model.as_str()));
    let named = catalog.adapters().iter().filter(|(name, _)| is_wanted(name.as_str()));
    let adapters = of_roles.flat_map(|role| &role.adapters).chain(named.map(|(_, adapter)| &**adapter));
    for (address, adapter) in adapters.filter_map(|adapter| Some((adapter.file.uri()?, adapter))) {
        // The document of an adapter states its hash, and a role may name the same file.
        let sha256 = wanted.entry(address.clone()).or_default();
        *sha256 = sha256.take().or_else(|| adapter.sha256.clone());
    }
    for model in catalog.models().values().filter(|model| is_wanted(model.name.as_str())) {
        wanted.extend(model.file.uri().map(|address| (address.clone(), model.sha256.clone())));
    }
    Ok(wanted)
}

/// The file at an address, downloaded first if it is not here, with a progress bar on a terminal.
pub(crate) async fn download(
    downloader: &HfDownloader,
    address: &HfUri,
    sha256: Option<&PieceHashes>,
) -> Result<PathBuf, artel_hub::Error> {
    let bar = bar(address);
    let progress = |progress: &DownloadProgress| {
        if let Some(total) = progress.total_bytes {
            bar.set_length(total);
        }
        bar.set_position(progress.done_bytes);
    };
    let fetched = downloader.get(address, sha256, progress).await;
    bar.finish_and_clear();
    fetched
}

/// A progress bar, shown only on a terminal; one for all pieces of a model.
fn bar(address: &HfUri) -> ProgressBar {
    const BAR: &str = "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
    let pieces = match address.pieces().len() {
        1 => String::new(),
        pieces => format!(" and {} more", pieces - 1),
    };
    let bar = ProgressBar::no_length().with_message(format!("{address}{pieces}"));
    bar.set_style(ProgressStyle::with_template(BAR).expect("the template is valid"));
    bar
}

fn show(address: &HfUri, fetched: &Result<PathBuf, artel_hub::Error>, output: &mut CommandOutput) -> Result<()> {
    let size = |path: &Path| -> u64 {
        piece_paths(path).iter().map(|path| path.metadata().map_or(0, |file| file.len())).sum()
    };
    let pieces = address.pieces().len();
    let address = address.to_string();
    let json = match fetched {
        Ok(path) => json!({"address": address, "path": path, "bytes": size(path), "pieces": pieces}),
        Err(error) => json!({"address": address, "error": error.to_string()}),
    };
    output.show(&json, |out| {
        match fetched {
            Ok(path) => out.push_styled(GOOD, "here").push(format_args!(
                ": {address}, {}{}, {}",
                bytes(size(path)),
                if pieces > 1 { format!(" in {pieces} pieces") } else { String::new() },
                path.display()
            )),
            Err(error) => out.push_styled(BAD, "not fetched").push(format_args!(": {error}")),
        };
        out.newline();
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
    fn adapters_are_fetched_by_their_names_or_with_the_models_of_their_roles() {
        let text = "adapter: poet\nfile: hf:org/lora/poet.gguf\nsha256: ".to_owned()
            + &"cd".repeat(32)
            + "\n---\nadapter: idle\nfile: hf:org/lora/idle.gguf\n---\nrole: one\ndescription: D.\nmodel: smollm2\n\
               adapter: [poet, 'hf:org/lora/two.gguf']\nprompt: P.\n---\nrole: two\ndescription: D.\nmodel: smollm2\n\
               adapter: {file: 'hf:org/lora/poet.gguf'}\nprompt: P.\n";
        let own = YamlSource { path: "own.yaml".to_owned(), dir: None, text };
        let catalog = Catalog::parse(vec![shipped::sources(), vec![own]]).unwrap();
        let files = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            wanted(&catalog, &names).unwrap().into_iter().map(|(uri, hash)| (uri.to_string(), hash)).collect::<Vec<_>>()
        };
        let file = |name: &str, hash: Option<PieceHashes>| (format!("hf:org/lora/{name}.gguf"), hash);
        let (poet, hash) = (|| file("poet", PieceHashes::new(vec!["cd".repeat(32)])), None);
        assert_eq!(files(&[]), [file("idle", hash.clone()), poet(), file("two", hash.clone())]);
        assert_eq!(files(&["smollm2"]), [poet(), file("two", hash.clone())]);
        assert_eq!(files(&["idle"]), [file("idle", hash)]);
        assert_eq!(files(&["poet"]), [poet()]);
    }

    #[test]
    fn files_named_by_the_catalog_are_fetched() {
        let catalog = catalog();
        let names = |names: &[&str]| -> Result<Vec<String>> {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            Ok(wanted(&catalog, &names)?.keys().map(ToString::to_string).collect())
        };
        assert_eq!(names(&[]).unwrap(), ["hf:org/lora@v2/poet.gguf", "hf:org/phi/phi.gguf"]);
        assert_eq!(names(&["smollm2"]).unwrap(), ["hf:org/lora@v2/poet.gguf"]);
        assert_eq!(names(&["phi"]).unwrap(), ["hf:org/phi/phi.gguf"]);
        assert!(names(&["phy"]).unwrap_err().to_string().contains("is `phi` meant?"));
        assert_eq!(
            wanted(&catalog, &["phi".to_owned()]).unwrap().into_values().next().unwrap(),
            Some("ab".repeat(32).into())
        );
    }
}
