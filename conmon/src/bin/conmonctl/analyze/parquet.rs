//! An analysis as a Parquet file: the columns of the CSV with their types, and in the footer what is true of the whole.
//!
//! Text is UTF-8, times are nanoseconds since 1970 in UTC, counts are unsigned 64-bit integers, all else doubles. Footer
//! metadata: `conmon.schema` and `conmon.schema_version` say how the columns are to be read; `conmon.captures`,
//! `conmon.clock` and `conmon.notes` are JSON, as in `-o json`. The version grows when a column changes its meaning, not when one is
//! added.

use std::sync::Arc;

use anyhow::Context as _;
use conmon::analysis::{AnalysisAnswer, AnalyzedPair};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::columns::{COLUMNS, Pick};

/// Of the columns' meaning.
const SCHEMA_VERSION: u32 = 1;

/// The file's octets.
pub fn parquet(answer: &AnalysisAnswer) -> anyhow::Result<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_created_by(format!("conmonctl version {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(metadata(answer)?))
        .build();
    let schema = parse_message_type(&schema()).context("the columns do not make a Parquet schema")?;
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, Arc::new(schema), Arc::new(properties))?;
    let mut rows = writer.next_row_group()?;
    for (_, pick) in COLUMNS {
        let mut column = rows.next_column()?.context("fewer columns than the schema has")?;
        write(&mut column, *pick, &answer.pairs)?;
        column.close()?;
    }
    rows.close()?;
    writer.close()?;
    Ok(file)
}

fn metadata(answer: &AnalysisAnswer) -> anyhow::Result<Vec<KeyValue>> {
    let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    Ok(vec![
        pair("conmon.schema", "conmon.analysis.pairs".to_owned()),
        pair("conmon.schema_version", SCHEMA_VERSION.to_string()),
        pair("conmon.captures", serde_json::to_string(&answer.captures)?),
        pair("conmon.clock", serde_json::to_string(&answer.clock)?),
        pair("conmon.notes", serde_json::to_string(&answer.notes)?),
    ])
}

fn schema() -> String {
    let fields = COLUMNS.iter().map(|(name, pick)| match pick {
        Pick::Text(_) => format!("  required binary {name} (STRING);\n"),
        Pick::Time(_) => format!("  required int64 {name} (TIMESTAMP(NANOS,true));\n"),
        Pick::Count(_) => format!("  optional int64 {name} (INTEGER(64,false));\n"),
        Pick::Number(_) => format!("  optional double {name};\n"),
    });
    format!("message pairs {{\n{}}}\n", fields.collect::<String>())
}

fn write(column: &mut SerializedColumnWriter<'_>, pick: Pick, pairs: &[AnalyzedPair]) -> anyhow::Result<()> {
    match pick {
        Pick::Text(of) => {
            let values: Vec<ByteArray> =
                pairs.iter().map(|pair| ByteArray::from(of(pair).into_bytes())).collect();
            column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
        }
        Pick::Time(of) => {
            // Times beyond the year 2262 have no place in the type, and are cut to its end.
            let ns = |pair: &AnalyzedPair| i64::try_from(of(pair).as_nanosecond()).unwrap_or(i64::MAX);
            let values: Vec<i64> = pairs.iter().map(ns).collect();
            column.typed::<Int64Type>().write_batch(&values, None, None)?;
        }
        // The type is unsigned; the octets are those of the signed one.
        Pick::Count(of) => optional::<Int64Type>(column, pairs.iter().map(|pair| Some(of(pair)? as i64)))?,
        Pick::Number(of) => optional::<DoubleType>(column, pairs.iter().map(of))?,
    }
    Ok(())
}

fn optional<T: DataType>(
    column: &mut SerializedColumnWriter<'_>,
    values: impl Iterator<Item = Option<T::T>>,
) -> anyhow::Result<()> {
    let values: Vec<Option<T::T>> = values.collect();
    let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
    let there: Vec<T::T> = values.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&there, Some(&levels), None)?;
    Ok(())
}
