# conmond on a host without an engine: it says so, goes on, answers, and leaves nothing after `clean`.
fail() { echo "conmond-alone: $*"; cat /run/conmond.log; exit 1; }

/bin/conmond run 2>/run/conmond.log &
daemon=$!
tries=0
until /bin/conmonctl status >/run/status 2>&1 && grep -q 'does not answer' /run/status; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || { cat /run/status; fail "no status that says that the engine does not answer"; }
    sleep 0.2
done
cat /run/status
# its exit code says that a check failed: the engine's, and no other
/bin/conmonctl doctor >/run/doctor
cat /run/doctor
grep -q '^FAIL *engine' /run/doctor || fail "doctor does not tell of the engine"
[ "$(grep -c '^FAIL' /run/doctor)" = 1 ] || fail "doctor tells of more than the engine"
grep -q "^ok *kernel *Linux $(uname -r)" /run/doctor || fail "doctor does not accept the kernel"
kill -0 $daemon || fail "the daemon has gone"
[ -e /sys/fs/bpf/conmon/default ] || fail "nothing is pinned"
grep -E 'ERROR|panicked|processed [0-9]+ insns' /run/conmond.log && fail "the log has errors, or the verifier's words"
kill -INT $daemon
wait $daemon || fail "it did not end well"
[ -e /sys/fs/bpf/conmon/default ] || fail "its pins went with it"
/bin/conmond clean && fail "clean is content without an engine, where monitoring containers may be left"
[ ! -e /sys/fs/bpf/conmon ] || fail "clean left pins: $(find /sys/fs/bpf/conmon)"
[ ! -e /run/conmon/default ] || fail "clean left $(find /run/conmon)"
echo "conmond-alone: ok"
