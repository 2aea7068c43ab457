//! Monitoring containers: without privilege, bounded, and recognisable.
//!
//! A monitoring container has no capability, no network, a read-only root, another user than root, limits on memory,
//! processor and processes, and the engine's default seccomp profile. All it can reach is its own folder of the
//! controller's run folder.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerStatsResponse,
    HostConfig, HostConfigLogConfig, Mount, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions,
};
use futures_util::StreamExt;

use super::image::{EXECUTABLE, ROLE_ARGUMENT};
use super::{ACT, Docker, answer, convert, filters, status_code};
use crate::runtime::{
    ContainerState, EngineKind, LABEL_INSTANCE, LABEL_ROLE, LABEL_SLOT, MONITOR_RUN_DIR, MONITOR_UID,
    Monitor, MonitorSpec, MonitorStatus, MonitorUsage, ROLE_MONITOR, Removed, RuntimeError,
};

/// Open files: descriptors of maps and rings come over the socket, a handful for each tenant.
const OPEN_FILES: i64 = 256;
/// Podman sets a limit of all processes of the user where none is given, and one so high that it may not itself. What
/// counts is the limit for each container.
const PROCESSES: i64 = 4096;
/// So many of the engine's warnings about one container are told.
const WARNINGS: usize = 10;
/// Between attempts to remove a container that the engine is removing already.
const REMOVAL_PAUSE: Duration = Duration::from_millis(50);

impl Docker {
    /// Makes a monitoring container and returns its identifier. One of the same slot is replaced.
    pub async fn create_monitor(&self, spec: &MonitorSpec) -> Result<String, RuntimeError> {
        if !is_slot(&spec.slot) {
            return Err(RuntimeError::BadSlot { slot: spec.slot.clone() });
        }
        if !spec.host_dir.is_dir() {
            return Err(RuntimeError::NoFolder { path: spec.host_dir.clone() });
        }
        let name = self.monitor_name(&spec.slot);
        match self.create(&name, spec).await {
            // The name is taken: what an earlier run left.
            Err(error) if says(&error, 409, "already in use") => {
                self.remove_monitor(&name).await?;
                self.create(&name, spec).await
            }
            outcome => outcome,
        }
    }

    async fn create(&self, name: &str, spec: &MonitorSpec) -> Result<String, RuntimeError> {
        const WHAT: &str = "create a monitoring container";
        let (client, kind) = self.client_and_kind().await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let body = create_body(self.instance(), spec, kind);
        let created = self.within(WHAT, ACT, client.create_container(Some(options), body)).await?;
        if !answer::is_id(&created.id) {
            let why = format!("it says that '{}' was made", answer::name(&created.id));
            return Err(RuntimeError::Nonsense { what: WHAT, why });
        }
        for warning in created.warnings.iter().take(WARNINGS).map(|text| answer::words(text)) {
            tracing::warn!(
                container = name,
                warning,
                "the engine cannot give a monitoring container all it should have"
            );
        }
        Ok(created.id)
    }

    /// Starts a monitoring container; it is no error when it runs already.
    pub async fn start_monitor(&self, id: &str) -> Result<(), RuntimeError> {
        let client = self.client().await?;
        let started = client.start_container(id, None::<StartContainerOptions>);
        self.within("start a monitoring container", ACT, started).await
    }

    /// Kills a monitoring container; it is no error when it does not run or is not there.
    pub async fn kill_monitor(&self, id: &str) -> Result<(), RuntimeError> {
        let client = self.client().await?;
        let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
        match self.within("kill a monitoring container", ACT, client.kill_container(id, Some(options))).await
        {
            Err(error) if status_code(&error) == Some(404) => Ok(()),
            Err(error) if says(&error, 409, "can only kill running containers") => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes a monitoring container, running or not, and returns when it is gone.
    pub async fn remove_monitor(&self, id: &str) -> Result<(), RuntimeError> {
        const WHAT: &str = "remove a monitoring container";
        let client = self.client().await?;
        let removal = async {
            loop {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                match self.within(WHAT, ACT, client.remove_container(id, Some(options))).await {
                    Err(error) if status_code(&error) == Some(404) => return Ok(()),
                    // Its removal is in progress; the name is free only when that is done.
                    Err(error) if status_code(&error) == Some(409) => tokio::time::sleep(REMOVAL_PAUSE).await,
                    outcome => return outcome,
                }
            }
        };
        let late = |_| RuntimeError::NoAnswer { what: WHAT, seconds: ACT.as_secs() };
        tokio::time::timeout(ACT, removal).await.map_err(late)?
    }

    /// This instance's monitoring containers in any state.
    pub async fn list_monitors(&self) -> Result<Vec<Monitor>, RuntimeError> {
        let labels =
            vec![format!("{LABEL_ROLE}={ROLE_MONITOR}"), format!("{LABEL_INSTANCE}={}", self.instance())];
        let path = format!("/containers/json?all=true&{}", filters("label", labels));
        let found = self.summaries("list monitoring containers", &path).await?;
        let prefix = self.monitor_name("");
        let monitors = found.into_iter().filter_map(|summary| {
            let names = summary.names.unwrap_or_default();
            // The labels alone do not make it ours: an application's container that bears them is never removed.
            let name =
                names.iter().map(|n| n.trim_start_matches('/')).find(|n| n.starts_with(&prefix))?.to_owned();
            let slot = summary.labels.unwrap_or_default().remove(LABEL_SLOT).filter(|slot| is_slot(slot))?;
            let state = convert::state(summary.state);
            Some(Monitor {
                id: summary.id.filter(|id| answer::is_id(id))?,
                name,
                slot,
                image_id: summary.image_id.unwrap_or_default(),
                state,
            })
        });
        let mut monitors: Vec<Monitor> = monitors.collect();
        monitors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(monitors)
    }

    /// What became of a monitoring container, none when it is not there.
    pub async fn monitor_status(&self, id: &str) -> Result<Option<MonitorStatus>, RuntimeError> {
        let found: Option<ContainerInspectResponse> =
            self.one("inspect a monitoring container", "/containers/", id, "/json").await?;
        Ok(found.and_then(|container| container.state).map(|state| {
            let now = status(state.status);
            let ended =
                matches!(now, ContainerState::Exited | ContainerState::Dead | ContainerState::Restarting);
            MonitorStatus {
                state: now,
                pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
                oom_killed: state.oom_killed.unwrap_or(false),
                exit_code: state.exit_code.filter(|_| ended),
            }
        }))
    }

    /// What a running monitoring container uses, none when it is not there or does not run.
    pub async fn monitor_usage(&self, id: &str) -> Result<Option<MonitorUsage>, RuntimeError> {
        const WHAT: &str = "tell what a monitoring container uses";
        const ONCE: &str = "/stats?stream=false&one-shot=true";
        let told = self.about(WHAT, "/containers/", id, ONCE).await?;
        // of one that does not run, Podman says nothing
        let Some(told) = told.filter(|told| !told.trim_ascii().is_empty()) else { return Ok(None) };
        let stats: ContainerStatsResponse =
            answer::one(&told).map_err(|why| RuntimeError::Nonsense { what: WHAT, why })?;
        let cpu_ns = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage).unwrap_or(0);
        let memory_bytes = stats.memory_stats.and_then(|memory| memory.usage).unwrap_or(0);
        let pids = stats.pids_stats.and_then(|pids| pids.current).unwrap_or(0);
        // A container that does not run is told as all zeros.
        Ok((pids != 0).then_some(MonitorUsage { memory_bytes, cpu_ns, pids }))
    }

    /// Removes this instance's monitoring containers and images. Goes on after a failure and returns the first.
    pub async fn remove_everything(&self) -> Result<Removed, RuntimeError> {
        let mut removed = Removed::default();
        let mut first = None;
        let removals = futures_util::stream::iter(self.list_monitors().await?)
            .map(|monitor| async move { self.remove_monitor(&monitor.id).await })
            .buffer_unordered(super::PARALLEL)
            .collect::<Vec<_>>()
            .await;
        for removal in removals {
            match removal {
                Ok(()) => removed.containers += 1,
                Err(error) => first = first.or(Some(error)),
            }
        }
        match self.remove_images(None).await {
            Ok(images) => removed.images = images.removed,
            Err(error) => first = first.or(Some(error)),
        }
        first.map_or(Ok(removed), Err)
    }

    fn monitor_name(&self, slot: &str) -> String {
        format!("conmon-pm-{}-{slot}", self.instance())
    }
}

/// Everything that the engine is asked to give, and above all not to give, to a monitoring container.
fn create_body(instance: &str, spec: &MonitorSpec, kind: EngineKind) -> ContainerCreateBody {
    let memory = i64::try_from(spec.limits.memory_bytes).unwrap_or(i64::MAX);
    let nano_cpus = i64::try_from(spec.limits.cpu_millicores.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    let limit = |name: &str, value| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(value),
        hard: Some(value),
    };
    let mut ulimits = vec![limit("nofile", OPEN_FILES), limit("core", 0)];
    if kind == EngineKind::Podman {
        ulimits.push(limit("nproc", PROCESSES));
    }
    let mount = Mount {
        target: Some(MONITOR_RUN_DIR.to_owned()),
        source: Some(spec.host_dir.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Default::default()
    };
    let log = HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(HashMap::from([
            ("max-size".to_owned(), "256k".to_owned()),
            ("max-file".to_owned(), "1".to_owned()),
        ])),
    };
    let host_config = HostConfig {
        network_mode: Some("none".to_owned()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        readonly_rootfs: Some(true),
        privileged: Some(false),
        ipc_mode: Some("none".to_owned()),
        memory: Some(memory),
        // The same as memory: no swap.
        memory_swap: Some(memory),
        nano_cpus: Some(nano_cpus),
        pids_limit: Some(i64::from(spec.limits.pids)),
        ulimits: Some(ulimits),
        mounts: Some(vec![mount]),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(log),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        entrypoint: Some(vec![EXECUTABLE.to_owned(), ROLE_ARGUMENT.to_owned()]),
        user: Some(format!("{MONITOR_UID}:{MONITOR_UID}")),
        env: Some(spec.env.clone()),
        hostname: Some(format!("conmon-pm-{}", spec.slot).chars().take(63).collect()),
        labels: Some(HashMap::from([
            (LABEL_INSTANCE.to_owned(), instance.to_owned()),
            (LABEL_ROLE.to_owned(), ROLE_MONITOR.to_owned()),
            (LABEL_SLOT.to_owned(), spec.slot.clone()),
        ])),
        // It keeps nothing that a polite end could save.
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(host_config),
        ..Default::default()
    }
}

fn status(status: Option<ContainerStateStatusEnum>) -> ContainerState {
    use ContainerStateStatusEnum as S;
    match status {
        Some(S::RUNNING) => ContainerState::Running,
        Some(S::PAUSED) => ContainerState::Paused,
        Some(S::RESTARTING) => ContainerState::Restarting,
        Some(S::EXITED) => ContainerState::Exited,
        Some(S::REMOVING | S::DEAD) => ContainerState::Dead,
        _ => ContainerState::Created,
    }
}

/// Whether the engine said so: Docker by a status, Podman 4 by words beside a status that means anything.
fn says(error: &RuntimeError, status: u16, words: &str) -> bool {
    let in_words = || match error {
        RuntimeError::Call { source, .. } => source.to_string().contains(words),
        _ => false,
    };
    status_code(error) == Some(status) || (status_code(error) == Some(500) && in_words())
}

/// Whether a slot may be the end of a container's name.
fn is_slot(slot: &str) -> bool {
    (1..=64).contains(&slot.len())
        && slot.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::MonitorLimits;

    #[test]
    fn the_request_asks_for_every_restriction() {
        let spec = MonitorSpec {
            slot: "s7".into(),
            image: "conmon-monitor-ci:abc".into(),
            host_dir: "/run/conmon/ci/pm/s7".into(),
            limits: MonitorLimits { memory_bytes: 32 << 20, cpu_millicores: 250, pids: 16 },
            env: vec!["A=b".into()],
        };
        let body = serde_json::to_value(create_body("ci", &spec, EngineKind::Docker)).unwrap();
        let host = &body["HostConfig"];
        let expected = [
            ("NetworkMode", serde_json::json!("none")),
            ("CapDrop", serde_json::json!(["ALL"])),
            ("SecurityOpt", serde_json::json!(["no-new-privileges:true"])),
            ("ReadonlyRootfs", true.into()),
            ("Privileged", false.into()),
            ("IpcMode", "none".into()),
            ("Memory", (32 << 20).into()),
            ("MemorySwap", (32 << 20).into()),
            ("NanoCpus", 250_000_000.into()),
            ("PidsLimit", 16.into()),
        ];
        for (key, value) in expected {
            assert_eq!(host[key], value, "{key}");
        }
        assert!(host.get("CapAdd").is_none() && host.get("Devices").is_none() && host.get("Binds").is_none());
        assert_eq!(host["RestartPolicy"]["Name"], "no");
        assert_eq!(host["Mounts"].as_array().map(Vec::len), Some(1));
        assert_eq!(host["Mounts"][0]["Source"], "/run/conmon/ci/pm/s7");
        assert_eq!(body["User"], "65534:65534");
        assert_eq!(body["Labels"]["conmon.role"], "monitor");
        assert_eq!(body["Labels"]["conmon.slot"], "s7");
        assert_eq!(body["Labels"]["conmon.instance"], "ci");
    }

    #[test]
    fn huge_limits_saturate() {
        let limits = MonitorLimits { memory_bytes: u64::MAX, cpu_millicores: u64::MAX, pids: u32::MAX };
        let spec = MonitorSpec {
            slot: "s".into(),
            image: "i".into(),
            host_dir: "/x".into(),
            limits,
            env: Vec::new(),
        };
        let host = create_body("ci", &spec, EngineKind::Podman).host_config.unwrap();
        assert_eq!((host.memory, host.nano_cpus), (Some(i64::MAX), Some(i64::MAX)));
        assert_eq!(host.pids_limit, Some(i64::from(u32::MAX)));
    }

    #[test]
    fn slots_fit_into_names() {
        for slot in ["1", "a-b_c.d", &"x".repeat(64)] {
            assert!(is_slot(slot), "{slot}");
        }
        for slot in ["", "a/b", "a b", "é", &"x".repeat(65)] {
            assert!(!is_slot(slot), "{slot}");
        }
    }
}
