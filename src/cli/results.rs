//! `results`: the rows of a stage.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;

use crate::data::Table;
use crate::data::export::{ExportFormat, Schema, Writer};
use crate::engine::api::{self, SinkError, USAGE_COLUMNS};
use crate::report::rows::{JsonRows, RowTable};
use crate::report::{Style, tell};

use super::Exit;
use super::error::{CliError, did_you_mean};
use super::globals::Globals;
use super::load::{Loaded, load};
use super::output::Output;
use super::terminal::Terminal;

/// Rows that a terminal is shown where nobody said how many.
const SCREENFUL: u64 = 100;

const EXAMPLE: &str = "\
Examples:
  bpp-flow results summary                         a table on the terminal, CSV in a pipe
  bpp-flow results measure flow.yaml -o rows.parquet
  bpp-flow results measure --columns cell,area --limit 20
  bpp-flow results measure --columns cell,seconds,peak_memory
  bpp-flow results measure --failed                the failed items, and why
  bpp-flow results measure --format jsonl | jq .area";

/// Prints the rows of a stage, in the order of its items
///
/// Rows come from what is stored: nothing is run. The format is that of the file's extension, else a table on a
/// terminal (the first 100 rows) and CSV elsewhere.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct Args {
    /// The stage
    #[arg(value_name = "STAGE")]
    stage: String,
    /// The workflow file; default: pipeline.yaml, then workflow.yaml
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How rows are written
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Shape>,
    /// Writes to this file, whole or not at all
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only these columns, in this order; also attempts, seconds, peak_memory (bytes) of the items
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// Only the first N rows
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// The failed items instead: their input columns, status, error and traceback
    #[arg(long)]
    failed: bool,
    /// Prints one JSON array
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    Csv,
    Tsv,
    Jsonl,
    Parquet,
    Arrow,
    Table,
    /// One array; `--json`.
    #[value(skip)]
    Json,
}

pub(super) fn run(args: &Args, globals: &Globals, terminal: &Terminal) -> Result<Exit, CliError> {
    let shape = shape(args, terminal.out_is_terminal)?;
    let loaded = load(args.file.as_deref(), globals, terminal)?;
    loaded.check_stage(&args.stage)?;
    let rows = Rows { loaded: &loaded, args, limit: args.limit };
    let to_terminal = args.output.is_none() && terminal.out_is_terminal;
    match shape {
        Shape::Table if to_terminal && args.limit.is_none() && args.format.is_none() => screenful(rows, terminal)?,
        Shape::Table => {
            let (style, width) = if to_terminal { (terminal.out, terminal.out_width) } else { (Style::PLAIN, None) };
            table(&rows, style, width)?;
        }
        Shape::Json => json(&rows)?,
        Shape::Csv => export(&rows, ExportFormat::Csv)?,
        Shape::Tsv => export(&rows, ExportFormat::Tsv)?,
        Shape::Jsonl => export(&rows, ExportFormat::Jsonl)?,
        Shape::Parquet => export(&rows, ExportFormat::Parquet)?,
        Shape::Arrow => export(&rows, ExportFormat::Arrow)?,
    }
    Ok(Exit::Success)
}

/// The format asked for, or that of the file, or what suits standard output.
fn shape(args: &Args, out_is_terminal: bool) -> Result<Shape, CliError> {
    let shape = match (args.json, args.format, &args.output) {
        (true, ..) => Shape::Json,
        (_, Some(shape), _) => shape,
        (_, None, Some(path)) => shape_of_file(path)?,
        (_, None, None) if out_is_terminal => Shape::Table,
        (_, None, None) => Shape::Csv,
    };
    if matches!(shape, Shape::Parquet | Shape::Arrow) && args.output.is_none() && out_is_terminal {
        return Err(CliError::usage("parquet and arrow are no text for a terminal").hint("write a file: -o FILE"));
    }
    Ok(shape)
}

fn shape_of_file(path: &Path) -> Result<Shape, CliError> {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "json" => Ok(Shape::Json),
        "ndjson" => Ok(Shape::Jsonl),
        "feather" => Ok(Shape::Arrow),
        "txt" => Ok(Shape::Table),
        known => Shape::from_str(known, true).map_err(|_| {
            CliError::usage(format!("the name {} does not tell the format", path.display()))
                .hint("end it with .csv, .tsv, .jsonl, .json, .parquet or .arrow, or say --format")
        }),
    }
}

/// The rows of a stage, to be read as often as needed.
struct Rows<'a> {
    loaded: &'a Loaded,
    args: &'a Args,
    limit: Option<u64>,
}

impl Rows<'_> {
    /// Hands on each batch, with the columns asked for.
    fn each(&self, sink: &mut dyn FnMut(&Table) -> Result<(), SinkError>) -> Result<(), CliError> {
        let Args { stage, columns, .. } = self.args;
        let mut pass = |table: Table| match columns {
            Some(columns) => sink(&table.project(columns)),
            None => sink(&table),
        };
        Ok(api::results(&self.loaded.flow, stage, self.asked(), &mut pass)?)
    }

    fn asked(&self) -> api::Rows {
        let about_items = |column: &String| USAGE_COLUMNS.contains(&column.as_str());
        let usage = self.args.columns.iter().flatten().any(about_items);
        api::Rows { failed: self.args.failed, usage, limit: self.limit }
    }

    fn output(&self) -> Result<Output, CliError> {
        Output::open(self.args.output.as_deref())
    }

    /// Refuses columns that no row has; a pass of its own, where columns are asked for.
    fn check_columns(&self) -> Result<(), CliError> {
        let Some(columns) = &self.args.columns else { return Ok(()) };
        let mut known: Vec<Arc<str>> = Vec::new();
        let mut learn = |table: Table| {
            let new: Vec<Arc<str>> = table.names().iter().filter(|n| !known.contains(n)).cloned().collect();
            known.extend(new);
            Ok(())
        };
        api::results(&self.loaded.flow, &self.args.stage, self.asked(), &mut learn)?;
        let known: Vec<&str> = known.iter().map(|n| &**n).collect();
        match columns.iter().find(|c| !known.contains(&c.as_str())) {
            Some(wrong) if !known.is_empty() => Err(no_column(wrong, &known)),
            _ => Ok(()),
        }
    }
}

fn no_column(wrong: &str, known: &[&str]) -> CliError {
    let near = did_you_mean(wrong, known.iter().copied());
    let all = format!("the columns are: {}", known.join(", "));
    CliError::usage(format!("there is no column `{wrong}`")).hint(near.unwrap_or(all))
}

/// The first rows, with a word when there are more.
fn screenful(rows: Rows<'_>, terminal: &Terminal) -> Result<(), CliError> {
    let mut there = 0;
    let one_more = Rows { limit: Some(SCREENFUL + 1), ..rows };
    one_more.each(&mut |table| {
        there += table.rows() as u64;
        Ok(())
    })?;
    table(&Rows { limit: Some(SCREENFUL), ..one_more }, terminal.out, terminal.out_width)?;
    if there > SCREENFUL {
        tell(&format!("the first {SCREENFUL} rows; --limit N or --format table shows more\n"));
    }
    Ok(())
}

fn table(rows: &Rows<'_>, style: Style, width: Option<usize>) -> Result<(), CliError> {
    rows.check_columns()?;
    let mut printer = RowTable::default();
    rows.each(&mut |table| {
        printer.observe(table);
        Ok(())
    })?;
    let output = rows.output()?;
    let mut sink = output.sink()?;
    printer.begin(&mut sink, style, width)?;
    rows.each(&mut |table| Ok(printer.write(&mut sink, table)?))?;
    sink.flush()?;
    output.finish()
}

fn json(rows: &Rows<'_>) -> Result<(), CliError> {
    rows.check_columns()?;
    let output = rows.output()?;
    let mut sink = output.sink()?;
    let mut printer = JsonRows::default();
    rows.each(&mut |table| Ok(printer.write(&mut sink, table)?))?;
    printer.finish(&mut sink)?;
    sink.flush()?;
    output.finish()
}

/// Twice over the rows: once for the columns' types, once to write them.
fn export(rows: &Rows<'_>, format: ExportFormat) -> Result<(), CliError> {
    rows.check_columns()?;
    let mut schema = Schema::default();
    rows.each(&mut |table| {
        schema.observe(table);
        Ok(())
    })?;
    let schema = schema.finish(format)?;
    let output = rows.output()?;
    let mut writer = Writer::new(format, &schema, output.sink()?)?;
    rows.each(&mut |table| Ok(writer.write(table)?))?;
    writer.finish()?;
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn shape_of(line: &str, terminal: bool) -> Result<Shape, String> {
        let args = Line::parse_from(std::iter::once("results").chain(line.split(' '))).args;
        shape(&args, terminal).map_err(|e| e.to_string())
    }

    #[test]
    fn the_format_is_asked_for_or_suits_the_place() {
        assert_eq!(shape_of("s", true), Ok(Shape::Table));
        assert_eq!(shape_of("s", false), Ok(Shape::Csv));
        assert_eq!(shape_of("s -o x.PARQUET", true), Ok(Shape::Parquet));
        assert_eq!(shape_of("s -o x.parquet --format csv", true), Ok(Shape::Csv));
        assert_eq!(shape_of("s --json", true), Ok(Shape::Json));
        assert_eq!(shape_of("s --format arrow", false), Ok(Shape::Arrow));
        assert!(shape_of("s --format arrow", true).is_err());
        assert_eq!(shape_of("s -o x.xls", true), Err("the name x.xls does not tell the format".to_string()));
    }

    #[test]
    fn a_wrong_column_is_told_with_the_right_ones() {
        let text = no_column("aera", &["cell", "area"]).render(Style::PLAIN);
        assert_eq!(text, "error: there is no column `aera`\nhint: did you mean `area`?\n");
    }
}
