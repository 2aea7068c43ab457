use axum::http::HeaderValue;
use conmon::token;

use super::*;

fn door(role: Option<Result<Role, RoleError>>, tokens: &[&str]) -> Door {
    let path = std::env::temp_dir().join(format!(
        "conmond-gate-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::write(&path, tokens.join("\n")).unwrap();
    let tokens = Tokens::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    Door::Tls { role, tokens: Arc::new(tokens) }
}

fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in all {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn host(name: &str) -> Option<Result<Role, RoleError>> {
    Some(Ok(Role::Host(name.to_owned())))
}

#[test]
fn who_is_who() {
    let shop = token::make("shop").unwrap();
    let bearer = format!("Bearer {}", shop.secret);
    let tenant = Scope::Tenant("shop".into());
    let operator = Some(Ok(Role::Operator("alice".to_owned())));
    let admit = |role, given: &[(&'static str, &str)]| {
        door(role, &[&shop.line])
            .admit(&headers(given))
            .map_err(|refused| (refused.error.status, refused.reason))
    };
    assert_eq!(Door::Local.admit(&HeaderMap::new()).unwrap(), Scope::All);
    assert_eq!(admit(operator.clone(), &[]), Ok(Scope::All));
    assert_eq!(admit(host("a"), &[]), Ok(Scope::Host("a".into())));
    assert_eq!(admit(None, &[("authorization", &bearer)]), Ok(tenant.clone()));
    assert_eq!(
        admit(operator.clone(), &[("authorization", &bearer)]),
        Ok(tenant.clone()),
        "the narrower counts"
    );
    assert_eq!(admit(host("a"), &[("conmon-tenant", "shop")]), Ok(tenant.clone()));
    assert_eq!(admit(host("a"), &[("conmon-host", "a")]), Ok(Scope::Host("a".into())));

    let none = Some(Err(RoleError::None));
    assert_eq!(admit(None, &[]), Err((401, Reason::NoCredentials)));
    assert_eq!(admit(none.clone(), &[]), Err((403, Reason::NotAllowed)));
    assert_eq!(admit(none, &[("authorization", &bearer)]), Ok(tenant), "a token needs no role");
    for wrong in
        ["Bearer x", "Bearer ", "Bearer", "Basic dXNlcjpwYXNz", &shop.secret, &format!("{bearer}x"), ""]
    {
        let refused = admit(operator.clone(), &[("authorization", wrong)]).unwrap_err();
        assert!(matches!(refused.0, 400 | 401), "{wrong:?}: {refused:?}");
    }
    let twice = [("authorization", bearer.as_str()), ("authorization", bearer.as_str())];
    assert_eq!(admit(None, &twice), Err((400, Reason::NotAllowed)));
    for elsewhere in ["x-token", "cookie", "proxy-authorization", "conmon-token"] {
        assert_eq!(admit(None, &[(elsewhere, &bearer)]), Err((401, Reason::NoCredentials)), "{elsewhere}");
    }
    let speaks = |role, host: &str| admit(role, &[("conmon-host", host)]);
    assert_eq!(speaks(host("a"), "b"), Err((403, Reason::NotAllowed)));
    assert_eq!(speaks(host("a"), "A"), Err((403, Reason::NotAllowed)));
    assert_eq!(speaks(operator, "a"), Err((403, Reason::NotAllowed)));
    let two = [("conmon-host", "a"), ("conmon-host", "b")];
    assert_eq!(admit(host("a"), &two), Err((400, Reason::NotAllowed)));
    let other = [("authorization", bearer.as_str()), ("conmon-tenant", "blog")];
    assert_eq!(admit(None, &other), Err((403, Reason::NotAllowed)));
    assert_eq!(Door::Local.admit(&headers(&[("conmon-host", "a")])).unwrap_err().error.status, 403);
}

#[test]
fn versions_without_a_protocol_in_common_are_told() {
    for (theirs, fine) in [
        ("1-1", true),
        ("1-9", true),
        ("2-9", false),
        ("0-0", false),
        ("7", false),
        ("new", false),
        ("9-1", false),
    ] {
        let given = headers(&[("conmon-protocol", theirs), ("user-agent", "conmon/9.0.0")]);
        match Door::Local.admit(&given) {
            Ok(scope) => assert!(fine && scope == Scope::All, "{theirs}"),
            Err(refused) => {
                assert!(!fine && refused.error.status == 426, "{theirs}: {refused:?}");
                assert!(
                    refused.error.error.contains(&format!("conmon/9.0.0 speaks protocol {theirs}")),
                    "{refused:?}"
                );
            }
        }
    }
}
