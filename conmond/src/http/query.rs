//! What a request asks for. A parameter that is not known is refused: ignoring a filter would make the answer a lie.

use conmon::api::ApiError;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::config::suggest::nearest;

/// The parameters of a request for `path`.
pub(super) fn parse<Q>(path: &str, query: Option<&str>) -> Result<Q, ApiError>
where
    Q: DeserializeOwned + IntoParams,
{
    let query = query.unwrap_or_default();
    let names: Vec<String> = Q::into_params(|| None).into_iter().map(|parameter| parameter.name).collect();
    let given: Vec<(String, String)> =
        serde_urlencoded::from_str(query).map_err(|error| unreadable(query, &error.to_string()))?;
    for (i, (name, value)) in given.iter().enumerate() {
        if !names.contains(name) {
            return Err(unknown(path, name, &names));
        }
        if given[..i].iter().any(|(earlier, _)| earlier == name) {
            return Err(ApiError::bad_request(format!("`{name}` is given twice"))
                .with_remedy("give each parameter once; ask again for another value"));
        }
        if value.is_empty() {
            return Err(ApiError::bad_request(format!("`{name}` has no value"))
                .with_remedy(format!("leave `{name}` out to get everything, or give it a value")));
        }
        // By itself, since errors do not tell which parameter they are about.
        let alone = serde_urlencoded::to_string([(name, value)]).unwrap_or_default();
        if let Err(error) = serde_urlencoded::from_str::<Q>(&alone) {
            return Err(bad_value(name, value, &error.to_string()));
        }
    }
    serde_urlencoded::from_str(query).map_err(|error| unreadable(query, &error.to_string()))
}

fn unreadable(query: &str, reason: &str) -> ApiError {
    ApiError::bad_request(format!("the query `{}` cannot be read: {reason}", shorten(query)))
        .with_remedy("write NAME=VALUE, joined by `&`, with special characters percent-encoded")
}

fn unknown(path: &str, name: &str, names: &[String]) -> ApiError {
    let error = ApiError::bad_request(format!("{path} has no parameter `{}`", shorten(name)));
    let known = match names {
        [] => format!("{path} takes none"),
        names => format!("{path} takes `{}`", names.join("`, `")),
    };
    error.with_remedy(match nearest(name, names.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`? {known}"),
        None => known,
    })
}

fn bad_value(name: &str, value: &str, reason: &str) -> ApiError {
    let error = ApiError::bad_request(format!("`{name}` cannot be `{}`", shorten(value)));
    // serde lists the words that can be in backquotes, after the one that cannot.
    let words: Vec<&str> = match reason.split_once("expected ") {
        Some((_, expected)) => expected.split('`').skip(1).step_by(2).collect(),
        None if reason.contains("`true` or `false`") => vec!["true", "false"],
        None => Vec::new(),
    };
    error.with_remedy(match nearest(value, words.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`? It can be `{}`", words.join("`, `")),
        None if !words.is_empty() => format!("give one of `{}`", words.join("`, `")),
        None => format!("give a whole number from 0 to {}", u32::MAX),
    })
}

/// A filter's word that matches nothing and is none of those that exist: an empty answer would hide a slip.
pub(super) fn no_such_word<'a>(
    name: &str,
    value: &str,
    known: impl IntoIterator<Item = &'a str>,
    where_listed: &str,
) -> ApiError {
    let meant = nearest(value, known).map(|meant| format!("did you mean `{meant}`? "));
    ApiError::bad_request(format!("there is no {name} `{}`", shorten(value)))
        .with_remedy(meant.unwrap_or_default() + where_listed)
}

/// A peer's text, not longer than a message should be.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use conmon::api::{EventKind, EventsQuery, FlowsQuery, Level, PairsQuery};

    use super::*;

    fn pairs(query: &str) -> Result<PairsQuery, ApiError> {
        parse("/v1/pairs", Some(query))
    }

    #[test]
    fn parameters_are_read() {
        assert_eq!(parse::<PairsQuery>("/v1/pairs", None).unwrap(), PairsQuery::default());
        let query = pairs("src=web%201&level=service&dst=a%2Bb").unwrap();
        assert_eq!(query.src.as_deref(), Some("web 1"));
        assert_eq!(query.dst.as_deref(), Some("a+b"));
        assert_eq!(query.level, Some(Level::Service));
        let events: EventsQuery = parse("/v1/events", Some("follow=true&kind=port_tapped")).unwrap();
        assert_eq!((events.follow, events.kind), (Some(true), Some(EventKind::PortTapped)));
        let flows: FlowsQuery = parse("/v1/flows", Some("limit=5&state=ended")).unwrap();
        assert_eq!(flows.limit, Some(5));
    }

    #[test]
    fn slips_are_told_with_what_may_have_been_meant() {
        for (query, error, remedy) in [
            (
                "scr=x",
                "/v1/pairs has no parameter `scr`",
                "did you mean `src`? /v1/pairs takes `src`, `dst`, `tenant`, `level`, `histograms`",
            ),
            (
                "color=x",
                "/v1/pairs has no parameter `color`",
                "/v1/pairs takes `src`, `dst`, `tenant`, `level`, `histograms`",
            ),
            (
                "level=servcie",
                "`level` cannot be `servcie`",
                "did you mean `service`? It can be `container`, `service`, `host`, `tenant`",
            ),
            ("level=9", "`level` cannot be `9`", "give one of `container`, `service`, `host`, `tenant`"),
            ("src=a&src=b", "`src` is given twice", "give each parameter once; ask again for another value"),
            ("src=", "`src` has no value", "leave `src` out to get everything, or give it a value"),
            ("src", "`src` has no value", "leave `src` out to get everything, or give it a value"),
        ] {
            let problem = pairs(query).unwrap_err();
            assert_eq!((problem.status, problem.error.as_str()), (400, error));
            assert_eq!(problem.remedy.as_deref(), Some(remedy));
        }
        let limit = parse::<FlowsQuery>("/v1/flows", Some("limit=-1")).unwrap_err();
        assert_eq!(limit.remedy.as_deref(), Some("give a whole number from 0 to 4294967295"));
        let follow = parse::<EventsQuery>("/v1/events", Some("follow=yes")).unwrap_err();
        assert_eq!(follow.remedy.as_deref(), Some("give one of `true`, `false`"));
    }

    #[test]
    fn hostile_queries_are_refused_in_few_words() {
        let long = pairs(&"x".repeat(20_000)).unwrap_err();
        assert!(long.error.len() < 300, "{}", long.error);
        for query in ["%", "%ff=%fe", "&&&=", "\u{0}=1", "=", "a=b=c"] {
            assert!(pairs(query).is_err(), "{query:?}");
        }
        assert!(pairs("&").is_ok(), "nothing was asked for");
    }
}
