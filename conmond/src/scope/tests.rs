use super::*;

fn container(name: &str, tenant: Option<&str>) -> Endpoint {
    Endpoint {
        kind: EndpointKind::Container,
        name: name.to_owned(),
        id: Some(format!("{name}-id")),
        service: Some(format!("{name}-service")),
        tenant: tenant.map(str::to_owned),
        host: Some("web1".to_owned()),
        addresses: vec!["10.0.0.1".parse().unwrap()],
    }
}

fn outside() -> Endpoint {
    Endpoint {
        kind: EndpointKind::External,
        name: "office".to_owned(),
        id: None,
        service: None,
        tenant: None,
        host: None,
        addresses: Vec::new(),
    }
}

#[test]
fn a_tenant_sees_its_conversations_and_of_others_only_addresses() {
    let shop = Scope::Tenant("shop".into());
    let (own, other, nobody) =
        (container("web", Some("shop")), container("db", Some("blog")), container("veth1", None));
    assert_eq!(shop.ends(own.clone(), own.clone()), Some((own.clone(), own.clone())));
    assert_eq!(shop.ends(own.clone(), outside()), Some((own.clone(), outside())));
    assert_eq!(shop.ends(other.clone(), other.clone()), None);
    assert_eq!(shop.ends(other.clone(), outside()), None);
    assert_eq!(shop.ends(nobody.clone(), outside()), None, "whose it is nobody knows yet");
    for far in [other, nobody] {
        let (src, dst) = shop.ends(far, own.clone()).unwrap();
        assert_eq!(dst, own);
        assert_eq!((src.kind, src.name.as_str()), (EndpointKind::External, Endpoint::ANOTHER_TENANT));
        assert_eq!((src.id, src.service, src.tenant, src.host), (None, None, None, None));
        assert_eq!(src.addresses.len(), 1);
    }
}

#[test]
fn hosts_and_operators_see_everything() {
    for scope in [Scope::All, Scope::Host("web1".into())] {
        let ends = (container("db", Some("blog")), outside());
        assert_eq!(scope.ends(ends.0.clone(), ends.1.clone()), Some(ends));
        assert!(scope.admits(None) && scope.admits(Some("blog")) && scope.whole("the status").is_ok());
    }
    let shop = Scope::Tenant("shop".into());
    assert!(
        shop.admits(Some("shop"))
            && !shop.admits(None)
            && !shop.admits(Some("blog"))
            && !shop.admits(Some(""))
    );
    assert_eq!(shop.whole("the status").unwrap_err().status, 403);
}

#[test]
fn only_a_host_speaks_and_only_for_itself() {
    assert_eq!(Scope::Host("a".into()).speaks_for("a"), Ok(()));
    for scope in [Scope::Host("a".into()), Scope::All, Scope::Tenant("b".into())] {
        let error = scope.speaks_for("b").unwrap_err();
        assert_eq!(error.status, 403, "{scope:?}");
        assert!(error.error.contains("speaks for host b"), "{}", error.error);
    }
}

#[test]
fn scopes_are_narrowed_never_widened() {
    let shop = Scope::Tenant("shop".into());
    assert_eq!(Scope::All.narrowed("shop"), Ok(shop.clone()));
    assert_eq!(Scope::Host("a".into()).narrowed("shop"), Ok(shop.clone()));
    assert_eq!(shop.clone().narrowed("shop"), Ok(shop.clone()));
    assert_eq!(shop.narrowed("blog").unwrap_err().status, 403);
}
