//! `dragonfly import tinkerbell` and `metal3`: others' manifests become ours.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use dragonfly_actions::plan::Catalog;
use dragonfly_core::action::TemplateChecker as _;
use dragonfly_core::resource::{Hardware, Record};
use dragonfly_core::tinkerbell::{Assignment, Converted, ManifestFile, Note, Object, Options, convert};
use futures_util::stream::{self, StreamExt as _};
use serde_json::{Value, json};

use super::super::apply;
use super::super::args::{Format, Install};
use super::super::client::{Call, Client, is_not_there};
use super::super::manifests;
use super::super::objects::text;
use super::super::output::{self, Out};
use super::super::verbs;
use super::{AT_ONCE, path};

/// Which manifests, and what is done with them.
#[derive(Debug, Args)]
pub(in crate::cli) struct Foreign {
    /// A file of YAML or JSON, `-` for standard input, or a directory (its *.yaml, *.yml, *.json)
    #[arg(short = 'f', long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Images lie elsewhere: URLs that begin with the first begin with the second; `/images/` is this server
    #[arg(long = "map-url", value_name = "FROM=TO", value_parser = pair)]
    urls: Vec<(String, String)>,
    /// An action's image is another one: `registry/my-writer=image2disk`
    #[arg(long = "map-image", value_name = "FROM=TO", value_parser = pair)]
    images: Vec<(String, String)>,
    /// Make Networks of what the machines were told, on this interface of the server; they answer machines with an
    /// address reserved
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Only say what would be done
    #[arg(long, conflicts_with = "assign")]
    dry_run: bool,
    /// Assign the templates to the machines that Workflows pair them with
    #[arg(long)]
    assign: bool,
    /// How to write it; with --dry-run, yaml is our manifests, without the values of Secrets
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten, next_help_heading = "With --assign")]
    install: Install,
}

/// `FROM=TO`
fn pair(word: &str) -> Result<(String, String), String> {
    match word.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err("write FROM=TO".to_owned()),
    }
}

pub(in crate::cli) async fn foreign(client: &Client, out: &Out, args: &Foreign) -> anyhow::Result<()> {
    let texts = manifests::read(&args.files)?;
    let files: Vec<ManifestFile<'_>> = texts.iter().map(|(name, text)| ManifestFile { name, text }).collect();
    let options = Options { images: args.images.clone(), urls: args.urls.clone() };
    let converted = convert(&files, &options);
    if converted.objects.is_empty() {
        tell(out, &converted, &[], args)?;
        bail!("nothing could be made of {}", names(&args.files));
    }
    if args.dry_run {
        let lines: Vec<Line> = converted.objects.iter().map(|object| Line::new(object, "would be made")).collect();
        tell(out, &converted, &lines, args)?;
        return refused(&converted);
    }
    let known = known(client, &converted).await?;
    let lines = write(client, &converted, &known, args).await?;
    tell(out, &converted, &lines, args)?;
    if args.assign { assign(client, out, &converted.assignments, &known, &args.install).await } else { Ok(()) }
}

fn names(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// What became of one object.
struct Line {
    kind: &'static str,
    name: String,
    change: String,
}

impl Line {
    fn new(object: &Object, change: &str) -> Self {
        Self { kind: object.kind(), name: object.name().to_owned(), change: change.to_owned() }
    }
}

/// Machines that the server knows already: the name in the manifests, and the one that they have here.
type Known = Vec<(String, String)>;

async fn known(client: &Client, converted: &Converted) -> anyhow::Result<Known> {
    let machines: Vec<&Hardware> = machines(converted).collect();
    let looked = stream::iter(machines.into_iter().map(async |machine| {
        let cards = machine.spec.macs.iter().map(ToString::to_string);
        for word in cards.chain([machine.name().to_owned()]) {
            match client.get(&path(&word, &[]), &[]).await {
                Ok(whole) => {
                    let name = whole.pointer("/machine/name").and_then(Value::as_str).unwrap_or(machine.name());
                    return Ok(Some((machine.name().to_owned(), name.to_owned())));
                }
                Err(error) if is_not_there(&error) => {}
                Err(error) => return Err(error.context(machine.name().to_owned())),
            }
        }
        Ok(None)
    }));
    let looked: Vec<anyhow::Result<Option<(String, String)>>> = looked.buffered(AT_ONCE).collect().await;
    Ok(looked.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn machines(converted: &Converted) -> impl Iterator<Item = &Hardware> {
    converted.objects.iter().filter_map(|object| match object {
        Object::Hardware(machine) => Some(&**machine),
        _ => None,
    })
}

/// Makes everything that is new; a machine that is known gets its controller alone.
async fn write(client: &Client, converted: &Converted, known: &Known, args: &Foreign) -> anyhow::Result<Vec<Line>> {
    let known_as = |name: &str| known.iter().find(|(in_manifest, _)| in_manifest == name).map(|(_, here)| here);
    let is_known = |object: &Object| matches!(object, Object::Hardware(machine) if known_as(machine.name()).is_some());
    let new = converted.objects.iter().filter(|object| !is_known(object)).map(|object| object.to_apply().to_string());
    let networks = args.interface.iter().flat_map(|interface| converted.networks.iter().map(|n| n.network(interface)));
    let mut all: Vec<String> = networks.map(|network| Record::from(&network).to_json().to_string()).collect();
    all.extend(new);
    let mut lines = Vec::new();
    if !all.is_empty() {
        // All of it is checked before any of it is written.
        let items = apply::send(client, all.join("\n---\n")).await.map_err(|error| apply::explained(None, error))?;
        for item in &items {
            let kind = match text(item, "/object/kind") {
                "Secret" => "Secret",
                "Network" => "Network",
                "Template" => "Template",
                _ => "Hardware",
            };
            let (name, change) = (text(item, "/object/metadata/name").to_owned(), text(item, "/change").to_owned());
            lines.push(Line { kind, name, change });
        }
        apply::warnings(&items).iter().for_each(|warning| output::note(warning));
    }
    for machine in machines(converted) {
        let Some(here) = known_as(machine.name()) else { continue };
        if let Some(bmc) = &machine.spec.bmc {
            let secret = bmc.secret_ref.as_ref().map(|secret| &secret.name);
            let body = json!({ "address": bmc.address, "secret": secret });
            client.slow(Call::Put, &path(here, &["bmc"]), Some(&body)).await.with_context(|| here.clone())?;
        }
        let change =
            if here == machine.name() { "known already".to_owned() } else { format!("known already as {here}") };
        lines.push(Line { kind: "Hardware", name: machine.name().to_owned(), change });
    }
    Ok(lines)
}

fn tell(out: &Out, converted: &Converted, lines: &[Line], args: &Foreign) -> anyhow::Result<()> {
    let networks: Vec<_> =
        args.interface.iter().flat_map(|interface| converted.networks.iter().map(|n| n.network(interface))).collect();
    let networks: Vec<Value> = networks.iter().map(|network| Record::from(network).to_json()).collect();
    match args.output {
        Format::Yaml => {
            for object in &converted.objects {
                if let Object::Secret(secret) = object {
                    let keys = secret.spec.data.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    out.line(&format!("# Secret {}: its values ({keys}) are not shown", secret.name()))?;
                }
            }
            let shown =
                converted.objects.iter().filter(|object| !matches!(object, Object::Secret(_))).map(Object::shown);
            for object in networks.into_iter().chain(shown) {
                out.raw("---\n")?;
                out.yaml(&object)?;
            }
            converted.notes.iter().for_each(|note| output::note(&note.to_string()));
        }
        Format::Json => {
            let objects: Vec<Value> = networks.into_iter().chain(converted.objects.iter().map(Object::shown)).collect();
            let pairs = converted
                .assignments
                .iter()
                .map(|pair| json!({ "hardware": pair.hardware, "template": pair.template, "workflow": pair.workflow }));
            out.json(&json!({
                "items": objects,
                "assignments": pairs.collect::<Vec<_>>(),
                "notes": converted.notes.iter().map(note_json).collect::<Vec<_>>(),
            }))?;
        }
        Format::Name => {
            for line in lines {
                out.line(&format!("{}/{}", line.kind.to_lowercase(), line.name))?;
            }
        }
        Format::Table | Format::Wide => tables(out, converted, lines, args)?,
    }
    Ok(())
}

fn tables(out: &Out, converted: &Converted, lines: &[Line], args: &Foreign) -> anyhow::Result<()> {
    if !lines.is_empty() {
        let rows: Vec<Vec<String>> =
            lines.iter().map(|line| vec![line.kind.to_owned(), line.name.clone(), line.change.clone()]).collect();
        out.table(&["KIND", "NAME", "CHANGE"], &rows)?;
    }
    if !converted.notes.is_empty() {
        if !lines.is_empty() {
            out.line("")?;
        }
        let mut notes: Vec<&Note> = converted.notes.iter().collect();
        // What matters most stands last, where a terminal ends.
        notes.sort_by_key(|note| note.outcome);
        let row = |note: &&Note| {
            let place = format!("{}:{}", note.file, note.line);
            vec![note.outcome.to_string(), place, note.object.clone(), note.path.clone(), note.said.clone()]
        };
        let rows: Vec<Vec<String>> = notes.iter().map(row).collect();
        out.table(&["OUTCOME", "PLACE", "OBJECT", "FIELD", "WHY"], &rows)?;
    }
    for hint in converted.networks.iter().filter(|_| args.interface.is_none()) {
        let said = format!(
            "{} of these machines are on {}; --interface NAME makes a Network of it that answers them",
            hint.machines.len(),
            hint.subnet
        );
        out.line(&said)?;
    }
    for pair in converted.assignments.iter().filter(|_| !args.assign) {
        out.line(&format!("{} is to get {} (--assign, or dragonfly assign)", pair.hardware, pair.template))?;
    }
    Ok(())
}

fn note_json(note: &Note) -> Value {
    json!({
        "file": note.file, "document": note.document, "line": note.line, "object": note.object, "path": note.path,
        "outcome": note.outcome.to_string(), "said": note.said,
    })
}

/// Whether the server would take the templates.
fn refused(converted: &Converted) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for object in &converted.objects {
        let Object::Template(template) = object else { continue };
        let problems = Catalog::builtin().check(&template.spec);
        all.extend(problems.iter().map(|p| format!("template {}: {}: {}", template.name(), p.path, p.problem)));
    }
    if all.is_empty() { Ok(()) } else { bail!("the server would refuse this\n  {}", all.join("\n  ")) }
}

/// Assigns one by one; each failure is told, the others go on.
async fn assign(
    client: &Client,
    out: &Out,
    pairs: &[Assignment],
    known: &Known,
    install: &Install,
) -> anyhow::Result<()> {
    let mut failed = 0;
    for pair in pairs {
        let here = known.iter().find(|(name, _)| *name == pair.hardware).map_or(&pair.hardware, |(_, here)| here);
        if let Err(error) = verbs::assign(client, out, std::slice::from_ref(here), &pair.template, install).await {
            failed += 1;
            output::complain(&error.context(format!("Workflow {}", pair.workflow)));
        }
    }
    if failed > 0 { bail!("{failed} of {} could not be assigned", pairs.len()) } else { Ok(()) }
}
