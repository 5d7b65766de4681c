//! Which model is taken, with the size that the hub states, and its download.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use artel_init::{ModelOffer, ModelTable, TableModel, assess, best};
use artel_roles::{ModelPurpose, nearest};
use artel_terminal::{BOLD, CommandOutput, DIM, GOOD, TextTable, WARN, bytes};

use super::questions::Questions;
use super::setup::Setup;
use crate::fetch;

impl Setup<'_> {
    /// The model of the command line, that of the person, or the best that fits, with its size as the hub states it. None if
    /// none fits.
    pub(super) async fn choose(
        &mut self,
        questions: &mut Questions,
        output: &mut CommandOutput,
    ) -> Result<Option<TableModel>> {
        let wanted = match &self.args.model {
            Some(name) => Some(named(&self.table, name)?.name.to_string()),
            None => self.ask(questions, output)?,
        };
        let mut asked = BTreeSet::new();
        loop {
            let (model, line) = {
                let offers = self.offers();
                let offer = match &wanted {
                    Some(name) => offers.iter().find(|offer| offer.model.name.as_str() == name),
                    None => best(&offers),
                };
                let Some(offer) = offer else {
                    show(&offers, output)?;
                    return Ok(None);
                };
                (offer.model.clone(), offer_line(offer))
            };
            let stated = if asked.insert(model.name.clone()) { self.stated_bytes(&model).await } else { None };
            let Some(stated) = stated.filter(|stated| *stated != model.file_bytes) else {
                self.notes.push(line, output)?;
                return Ok(Some(model));
            };
            let (hub, table) = (bytes(stated), bytes(model.file_bytes));
            self.notes
                .push(format!("the file of {} has {hub} on the hub, and {table} in the table", model.name), output)?;
            self.table.set_file_bytes(&model.name, stated);
        }
    }

    /// The rows of the table, each with whether it fits.
    fn offers(&self) -> Vec<ModelOffer<'_>> {
        assess(&self.table, &self.resources, &|address| self.downloader.has(address))
    }

    /// The name that a person chose; none without a person, or without a model that fits.
    fn ask(&self, questions: &mut Questions, output: &mut CommandOutput) -> Result<Option<String>> {
        let offers = self.offers();
        let Some(proposal) = best(&offers).filter(|_| questions.are_asked()) else { return Ok(None) };
        show(&offers, output)?;
        questions.model(&offers, proposal.model.name.as_str()).map(Some)
    }

    /// The size of a file that is still to be downloaded, if the hub states one. Otherwise the download fails soon, for the same
    /// reason and with its words.
    async fn stated_bytes(&self, model: &TableModel) -> Option<u64> {
        if self.config.offline || self.is_here(model) {
            return None;
        }
        self.downloader.statement(&model.address).await.ok()?.size_bytes
    }

    /// The file of a model, downloaded if it is not here.
    pub(super) async fn download(&self, model: &TableModel) -> Result<PathBuf, artel_hub::Error> {
        fetch::download(&self.downloader, &model.address, None).await
    }
}

/// The offer in words.
fn offer_line(offer: &ModelOffer<'_>) -> String {
    let TableModel { name, parameters, quantisation, licence, fetched, .. } = offer.model;
    let tried = match fetched {
        Some(date) => format!("last tried on {date}"),
        None => "this row of the table was never tried".to_owned(),
    };
    let (size, fit) = (bytes(offer.model.file_bytes), &offer.fit);
    let fits = if offer.fits() { "it fits" } else { "it may not run here" };
    format!("{name}: {parameters} parameters, {quantisation}, {size}, licence {licence}; {tried}; {fits}: {fit}")
}

/// All rows as a table, with the reason for each.
fn show(offers: &[ModelOffer<'_>], output: &mut CommandOutput) -> Result<()> {
    if output.is_json() {
        return Ok(());
    }
    let mut table = TextTable::new(&["MODEL", "PARAMETERS", "FORMAT", "SIZE", "LICENCE", "TRIED", "FITS"]);
    for offer in offers {
        let model = offer.model;
        let (style, fits) =
            if offer.fits() { (GOOD, format!("yes: {}", offer.fit)) } else { (DIM, format!("no: {}", offer.fit)) };
        table.row(vec![
            (BOLD, model.name.to_string()),
            (DIM, model.parameters.clone()),
            (DIM, model.quantisation.clone()),
            (DIM, bytes(model.file_bytes)),
            (DIM, model.licence.clone()),
            if let Some(date) = &model.fetched { (DIM, date.clone()) } else { (WARN, "never".to_owned()) },
            (style, fits),
        ]);
    }
    output.render(|out| table.render(out))?;
    Ok(())
}

/// The chat model of this name in the table.
fn named<'t>(table: &'t ModelTable, name: &str) -> Result<&'t TableModel> {
    table.chat_model(name).ok_or_else(|| {
        let names: Vec<&str> = table.models(ModelPurpose::Chat).map(|model| model.name.as_str()).collect();
        let near = nearest(name, names.iter().copied()).map(|name| format!("; is `{name}` meant?"));
        anyhow!("the table has no model `{name}`{}", near.unwrap_or_else(|| format!("; it has {}", names.join(", "))))
    })
}
