//! Conditions that the query builder has no words for. Unlike the builder's own
//! literals they leave a statement fit to be kept prepared: its text tells it apart.

use std::borrow::Cow;

use diesel::{
    AppearsOnTable, Expression, QueryResult, SelectableExpression,
    data_types::PgTimestamp,
    expression::{ValidGrouping, is_aggregate},
    pg::Pg,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{Array, Bool, Text, Timestamptz, Uuid as SqlUuid},
};

use crate::domain::Uuid;

/// Whether an indexed text is one of these. The index is on hashes. The text itself is
/// compared in a form whose selectivity the planner does not multiply with that of the
/// hash: otherwise it would expect hardly any rows, and choose to sort all of them.
pub(crate) fn text_is<'a>(column: &str, texts: Vec<&'a str>) -> Predicate<'a> {
    let keyed = Predicate::default();
    match texts.as_slice() {
        [one] => keyed
            .sql(format!(
                "(hashtextextended({column}, 0) = hashtextextended("
            ))
            .text(one)
            .sql(format!(", 0) AND coalesce({column} = "))
            .text(one)
            .sql(", FALSE))"),
        _ => keyed
            .sql(format!("(hashtextextended({column}, 0) = ANY (text_keys("))
            .texts(texts.clone())
            .sql(format!(")) AND coalesce({column} = ANY ("))
            .texts(texts)
            .sql("), FALSE))"),
    }
}

/// Whether a text is absent or another one.
pub(crate) fn is_not<'a>(column: &'static str, text: &'a str) -> Predicate<'a> {
    let sql = format!("{column} IS DISTINCT FROM ");
    Predicate::default().sql(sql).text(text)
}

/// SQL with values in it, which is true or false of a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct Predicate<'a>(Vec<Part<'a>>);

#[derive(Debug, Clone)]
enum Part<'a> {
    Sql(Cow<'static, str>),
    Text(&'a str),
    Texts(Vec<&'a str>),
    Time(PgTimestamp),
    Uuid(Uuid),
}

impl<'a> Predicate<'a> {
    /// Adds SQL, in which nothing may come from a client.
    pub(crate) fn sql(mut self, sql: impl Into<Cow<'static, str>>) -> Self {
        self.0.push(Part::Sql(sql.into()));
        self
    }

    /// Adds a text.
    pub(crate) fn text(mut self, text: &'a str) -> Self {
        self.0.push(Part::Text(text));
        self
    }

    /// Adds an array of texts.
    pub(crate) fn texts(mut self, texts: Vec<&'a str>) -> Self {
        self.0.push(Part::Texts(texts));
        self
    }

    /// Adds a time.
    pub(crate) fn time(mut self, time: PgTimestamp) -> Self {
        self.0.push(Part::Time(time));
        self
    }

    /// Adds a uid.
    pub(crate) fn uid(mut self, uid: Uuid) -> Self {
        self.0.push(Part::Uuid(uid));
        self
    }

    /// This or the other.
    pub(crate) fn or(self, other: Self) -> Self {
        self.joined(" OR ", other)
    }

    /// This and the other.
    pub(crate) fn and(self, other: Self) -> Self {
        self.joined(" AND ", other)
    }

    fn joined(self, operator: &'static str, other: Self) -> Self {
        let mut both = Self::default().sql("(");
        both.0.extend(self.0);
        both.0.push(Part::Sql(operator.into()));
        both.0.extend(other.0);
        both.sql(")")
    }
}

impl Expression for Predicate<'_> {
    type SqlType = Bool;
}

impl<Table> AppearsOnTable<Table> for Predicate<'_> {}

impl<Table> SelectableExpression<Table> for Predicate<'_> {}

impl ValidGrouping<()> for Predicate<'_> {
    type IsAggregate = is_aggregate::No;
}

impl QueryId for Predicate<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for Predicate<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        for part in &self.0 {
            match part {
                Part::Sql(sql) => out.push_sql(sql),
                Part::Text(text) => out.push_bind_param::<Text, _>(text)?,
                Part::Texts(texts) => out.push_bind_param::<Array<Text>, _>(texts)?,
                Part::Time(time) => out.push_bind_param::<Timestamptz, _>(time)?,
                Part::Uuid(uid) => out.push_bind_param::<SqlUuid, _>(uid)?,
            }
        }
        Ok(())
    }
}
