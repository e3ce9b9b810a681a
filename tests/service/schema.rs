//! The tables as the store's sources declare them, against those that the migrations make;
//! and that a field is kept in the column of its name.

use prost_types::Timestamp;
use tokio_postgres::Client as Database;
use voicecall::proto::{VoiceCall, VoiceCallDirection, VoiceCallStatus};

use crate::support::{
    Server, create, get,
    postgres::{Cluster, connect},
    update,
};

/// A table: its name, its columns, and those of its primary key.
#[derive(Debug, Default, PartialEq)]
struct Table {
    name: String,
    primary_key: Vec<String>,
    columns: Vec<Column>,
}

#[derive(Debug, PartialEq)]
struct Column {
    name: String,
    /// As PostgreSQL names it; that of a domain is the type that it restricts.
    type_name: String,
    is_nullable: bool,
}

/// The tables that diesel knows.
fn declared() -> Vec<Table> {
    let source = include_str!("../../src/store/schema.rs");
    source
        .split("diesel::table! {")
        .skip(1)
        .map(declared_table)
        .collect()
}

/// `name (key) {`, then `column -> Type,` or `column -> Nullable<Type>,` a line.
fn declared_table(source: &str) -> Table {
    let mut table = Table::default();
    for line in source.lines().map(str::trim) {
        if let Some((name, key)) = line.strip_suffix(") {").and_then(|l| l.split_once(" (")) {
            table.name = name.to_owned();
            table.primary_key = key.split(", ").map(str::to_owned).collect();
        } else if let Some((name, sql_type)) = line.split_once(" -> ") {
            let sql_type = sql_type.trim_end_matches(',');
            let nullable = sql_type
                .strip_prefix("Nullable<")
                .and_then(|inner| inner.strip_suffix('>'));
            table.columns.push(Column {
                name: name.to_owned(),
                type_name: type_name(nullable.unwrap_or(sql_type)),
                is_nullable: nullable.is_some(),
            });
        }
    }
    table
}

/// PostgreSQL's name of a type of diesel's, or of one of our own.
fn type_name(diesel_name: &str) -> String {
    let name = match diesel_name {
        "BigInt" => "int8",
        "Bool" => "bool",
        "Integer" => "int4",
        "Jsonb" => "jsonb",
        "Text" => "text",
        "Timestamptz" => "timestamptz",
        "Uuid" => "uuid",
        "VoiceCallChangeKind" => "voice_call_change_kind",
        "VoiceCallDirection" => "voice_call_direction",
        "VoiceCallStatus" => "voice_call_status",
        _ => panic!("{diesel_name} is new here"),
    };
    name.to_owned()
}

/// The table of this name in the database.
async fn migrated(database: &Database, name: &str) -> Table {
    let columns = database
        .query(
            "SELECT column_name::text, udt_name::text, is_nullable = 'YES' \
             FROM information_schema.columns \
             WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position",
            &[&name],
        )
        .await
        .expect("it answers");
    let primary_key = database
        .query(
            "SELECT column_name::text FROM information_schema.key_column_usage \
             JOIN information_schema.table_constraints USING (constraint_schema, constraint_name) \
             WHERE constraint_schema = 'public' AND constraint_type = 'PRIMARY KEY' \
                AND key_column_usage.table_name = $1 \
             ORDER BY ordinal_position",
            &[&name],
        )
        .await
        .expect("it answers");
    Table {
        name: name.to_owned(),
        primary_key: primary_key.iter().map(|row| row.get(0)).collect(),
        columns: columns
            .iter()
            .map(|row| Column {
                name: row.get(0),
                type_name: row.get(1),
                is_nullable: row.get(2),
            })
            .collect(),
    }
}

#[tokio::test]
async fn the_tables_are_declared_as_the_migrations_make_them() {
    let url = Cluster::shared().await.database().await;
    let database = connect(&url).await;
    let declared = declared();
    assert_eq!(declared.len(), 5, "{declared:#?}");
    for table in declared {
        assert_eq!(migrated(&database, &table.name).await, table);
    }
}

/// A call with another value in each field, and what the columns then hold.
fn distinct(n: i64) -> (VoiceCall, Vec<(&'static str, String)>) {
    let text = |field: &str| Some(format!("{field} {n}"));
    let url = |field: &str| Some(format!("https://example.com/{field}/{n}"));
    let call = VoiceCall {
        duration: Some(i32::try_from(n).expect("small")),
        status: VoiceCallStatus::Missed.into(),
        direction: VoiceCallDirection::Outbound.into(),
        staff_uid: text("staff"),
        client_uid: text("client"),
        from_number: text("from"),
        to_number: text("to"),
        recording_url: url("recording"),
        call_summary: text("summary"),
        external_app_url: url("app"),
        handled_by_staff_uid: text("handler"),
        handled_at: Some(Timestamp {
            seconds: n,
            nanos: 0,
        }),
        ..VoiceCall::default()
    };
    let columns = vec![
        ("duration", n.to_string()),
        ("status", "missed".to_owned()),
        ("direction", "outbound".to_owned()),
        ("staff_uid", format!("staff {n}")),
        ("client_uid", format!("client {n}")),
        ("from_number", format!("from {n}")),
        ("to_number", format!("to {n}")),
        (
            "recording_url",
            format!("https://example.com/recording/{n}"),
        ),
        ("call_summary", format!("summary {n}")),
        ("external_app_url", format!("https://example.com/app/{n}")),
        ("handled_by_staff_uid", format!("handler {n}")),
        ("extract(epoch FROM handled_at)::bigint", n.to_string()),
    ];
    (call, columns)
}

/// Fields that are swapped on the way in and swapped back on the way out look right to a
/// client.
#[tokio::test]
async fn each_field_is_kept_in_the_column_of_its_name() {
    let server = Server::start().await;
    let mut client = server.client();
    let database = connect(&server.database_url).await;
    let mut uid = String::new();
    for n in [61, 62] {
        let (call, columns) = distinct(n);
        let written = if uid.is_empty() {
            create(&mut client, call.clone()).await
        } else {
            let call = VoiceCall {
                uid: uid.clone(),
                ..call.clone()
            };
            let updated = update(&mut client, call, &[]).await;
            updated.expect("it is there")
        };
        uid.clone_from(&written.uid);
        let expected = VoiceCall {
            uid: uid.clone(),
            created_at: written.created_at,
            updated_at: written.updated_at,
            revision: written.revision,
            ..call
        };
        assert_eq!(written, expected);
        assert_eq!(get(&mut client, &uid).await.expect("it is there"), expected);
        for table in ["voice_calls", "voice_call_changes"] {
            for (column, value) in &columns {
                let sql =
                    format!("SELECT ({column})::text FROM {table} ORDER BY revision DESC LIMIT 1");
                let row = database.query_one(&sql, &[]).await.expect("it answers");
                assert_eq!(row.get::<_, String>(0), *value, "{table}.{column}");
            }
        }
    }
}
