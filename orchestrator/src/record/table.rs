//! Parquet files, written row by row: rows are buffered to a bounded group, which is then written column by column.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::RecordError;

/// Rows that are held in memory before they are written as one row group.
pub(super) const GROUP_ROWS_MAX: usize = 16_384;

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An unsigned number.
    Number,
    /// An unsigned number, or nothing.
    MaybeNumber,
    /// A text of few distinct values.
    Text,
    /// Such a text, or nothing.
    MaybeText,
}

/// A column's name and kind.
pub(super) type Column = (&'static str, Kind);

/// One value of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    Number(u64),
    Text(&'a str),
    Nothing,
}

/// A file with its columns.
pub(super) struct Table {
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    columns: Vec<Buffer>,
    rows: usize,
}

impl Table {
    pub(super) fn create(path: PathBuf, columns: &[Column]) -> Result<Table, RecordError> {
        let file = File::create(&path).map_err(|source| RecordError::File {
            doing: "create",
            path: path.clone(),
            source,
        })?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(concat!("p2ps-orchestrator ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = parse_message_type(&schema(columns))
            .and_then(|schema| SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties)))
            .map_err(failed(&path))?;
        let columns = columns.iter().map(|(_, kind)| Buffer::new(*kind)).collect();
        Ok(Table { path, writer, columns, rows: 0 })
    }

    /// Appends a row; `cells` are of the kinds and in the order of the columns.
    pub(super) fn row(&mut self, cells: &[Cell<'_>]) -> Result<(), RecordError> {
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.push(*cell);
        }
        self.rows += 1;
        if self.rows < GROUP_ROWS_MAX { Ok(()) } else { self.write_group() }
    }

    /// Writes what is left, and the file's end, without which it cannot be read.
    pub(super) fn finish(mut self) -> Result<(), RecordError> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.writer.close().map(drop).map_err(failed(&self.path))
    }

    fn write_group(&mut self) -> Result<(), RecordError> {
        self.rows = 0;
        write_group(&mut self.writer, &mut self.columns).map_err(failed(&self.path))
    }
}

fn write_group(writer: &mut SerializedFileWriter<File>, columns: &mut [Buffer]) -> Result<(), ParquetError> {
    let mut group = writer.next_row_group()?;
    for column in columns {
        if let Some(mut to) = group.next_column()? {
            column.write(&mut to)?;
            to.close()?;
        }
    }
    group.close().map(drop)
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("path", &self.path).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// The rows of a column that are not yet written. Of a column that may hold nothing, `present` says for each row whether
/// it does (Parquet's definition level).
struct Buffer {
    kind: Kind,
    numbers: Vec<i64>,
    texts: Vec<ByteArray>,
    present: Vec<i16>,
}

impl Buffer {
    fn new(kind: Kind) -> Buffer {
        Buffer { kind, numbers: Vec::new(), texts: Vec::new(), present: Vec::new() }
    }

    fn push(&mut self, cell: Cell<'_>) {
        let optional = matches!(self.kind, Kind::MaybeNumber | Kind::MaybeText);
        match (self.kind, cell) {
            // Parquet's unsigned numbers are stored as the signed ones of the same bits.
            (Kind::Number | Kind::MaybeNumber, Cell::Number(number)) => self.numbers.push(number as i64),
            (Kind::Text | Kind::MaybeText, Cell::Text(text)) => self.texts.push(ByteArray::from(text)),
            _ if optional => return self.present.push(0),
            (Kind::Number | Kind::MaybeNumber, _) => {
                debug_assert!(false, "a column of numbers was given {cell:?}");
                self.numbers.push(0);
            }
            (Kind::Text | Kind::MaybeText, _) => {
                debug_assert!(false, "a column of texts was given {cell:?}");
                self.texts.push(ByteArray::from(""));
            }
        }
        if optional {
            self.present.push(1);
        }
    }

    fn write(&mut self, to: &mut SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        let optional = matches!(self.kind, Kind::MaybeNumber | Kind::MaybeText);
        let present = optional.then_some(self.present.as_slice());
        match to.untyped() {
            ColumnWriter::Int64ColumnWriter(writer) => writer.write_batch(&self.numbers, present, None)?,
            ColumnWriter::ByteArrayColumnWriter(writer) => writer.write_batch(&self.texts, present, None)?,
            _ => return Err(ParquetError::General("a column of a kind that no table here has".to_owned())),
        };
        self.numbers.clear();
        self.texts.clear();
        self.present.clear();
        Ok(())
    }
}

fn schema(columns: &[Column]) -> String {
    let column = |(name, kind): &Column| match kind {
        Kind::Number => format!("REQUIRED INT64 {name} (INTEGER(64,false));\n"),
        Kind::MaybeNumber => format!("OPTIONAL INT64 {name} (INTEGER(64,false));\n"),
        Kind::Text => format!("REQUIRED BYTE_ARRAY {name} (STRING);\n"),
        Kind::MaybeText => format!("OPTIONAL BYTE_ARRAY {name} (STRING);\n"),
    };
    format!("message rows {{\n{}}}\n", columns.iter().map(column).collect::<String>())
}

fn failed(path: &Path) -> impl FnOnce(ParquetError) -> RecordError + use<> {
    let path = path.to_owned();
    move |source| RecordError::Table { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    #[test]
    fn rows_come_back_from_as_many_groups_as_they_need() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rows.parquet");
        let columns = [("number", Kind::Number), ("maybe", Kind::MaybeNumber), ("text", Kind::MaybeText)];
        let mut table = Table::create(path.clone(), &columns).unwrap();
        let rows = GROUP_ROWS_MAX as u64 + 10;
        for row in 0..rows {
            let maybe = if row % 3 == 0 { Cell::Nothing } else { Cell::Number(u64::MAX - row) };
            let text = if row % 2 == 0 { Cell::Text("even") } else { Cell::Nothing };
            table.row(&[Cell::Number(row), maybe, text]).unwrap();
        }
        table.finish().unwrap();

        let reader = SerializedFileReader::try_from(path.as_path()).unwrap();
        assert_eq!(reader.num_row_groups(), 2);
        let mut read_rows = 0;
        for (row, read) in (0u64..).zip(reader) {
            read_rows += 1;
            let maybe = if row % 3 == 0 { "null".to_owned() } else { (u64::MAX - row).to_string() };
            let text = if row % 2 == 0 { "\"even\"" } else { "null" };
            assert_eq!(read.unwrap().to_string(), format!("{{number: {row}, maybe: {maybe}, text: {text}}}"));
        }
        assert_eq!(read_rows, rows);
    }

    #[test]
    fn a_table_without_rows_can_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none.parquet");
        Table::create(path.clone(), &[("number", Kind::Number)]).unwrap().finish().unwrap();
        assert_eq!(SerializedFileReader::try_from(path.as_path()).unwrap().into_iter().count(), 0);
    }
}
