//! What the steps of the command share: its arguments, the place, the table and the machine.

use anyhow::Result;
use artel_args::InitArgs;
use artel_hub::HfDownloader;
use artel_init::{MachineResources, ModelTable, TableModel};
use artel_placement::DeviceBytes;
use artel_roles::ModelPurpose;
use artel_terminal::{CommandOutput, bytes};

use super::notes::Notes;
use super::place::CatalogPlace;
use super::questions::Questions;
use crate::serve::config::{Config, config_dir};
use crate::serve::loader::LlamaLoader;

/// The file in the directory of the user's configuration that replaces the table that ships.
const OWN_TABLE: &str = "init-models.yaml";

/// What the steps of the command share.
pub(super) struct Setup<'a> {
    pub(super) args: &'a InitArgs,
    pub(super) config: Config,
    pub(super) place: CatalogPlace,
    pub(super) table: ModelTable,
    pub(super) resources: MachineResources,
    pub(super) downloader: HfDownloader,
    pub(super) notes: Notes,
}

impl<'a> Setup<'a> {
    /// Finds the place, reads the table and looks at the machine.
    pub(super) async fn new(args: &'a InitArgs, questions: &mut Questions) -> Result<Self> {
        let place = CatalogPlace::find(args, questions)?;
        let config = Config::of(&place.daemon_args(args), None)?;
        let downloader = HfDownloader::new(config.runtime.models_dir.clone(), config.offline)
            .with_token_file(config.hf_token_file.as_deref());
        let (table, resources) = (table(args)?, resources(&config).await);
        Ok(Self { args, config, place, table, resources, downloader, notes: Notes::default() })
    }

    /// Says what memory the choice goes by.
    pub(super) fn show_memory(&mut self, output: &mut CommandOutput) -> Result<()> {
        let devices = self.resources.devices.iter();
        let memory =
            devices.map(|device| format!("{} free of {} on {}", bytes(device.free), bytes(device.total), device.name));
        let memory = memory.collect::<Vec<_>>().join(", ");
        self.notes.push(format!("memory: {memory}"), output)
    }

    /// Whether a file of the hub is here, with all of its pieces.
    pub(super) fn is_here(&self, model: &TableModel) -> bool {
        self.downloader.has(&model.address)
    }

    /// The first embedding model of the table.
    pub(super) fn embedding(&self) -> Option<TableModel> {
        self.table.models(ModelPurpose::Embedding).next().cloned()
    }
}

/// The table of the command line, of the user, or the one that ships.
fn table(args: &InitArgs) -> Result<ModelTable> {
    let own = || config_dir().map(|dir| dir.join(OWN_TABLE)).filter(|path| path.exists());
    match args.models_table.clone().or_else(own) {
        Some(path) => Ok(ModelTable::load(&path)?),
        None => Ok(ModelTable::shipped()),
    }
}

/// The memory of this machine, as the daemon sees it, and the space for files.
async fn resources(config: &Config) -> MachineResources {
    MachineResources {
        devices: LlamaLoader::new(config).inventory().devices(&DeviceBytes::new()).await,
        free_disk_bytes: artel_hub::disk::free_bytes(&config.runtime.models_dir),
    }
}
