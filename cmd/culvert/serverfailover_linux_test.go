package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"culvert/internal/lab"
)

// A client that joins a server is told of another as well, without anything in its file that it did not get by joining. It goes to the
// second when the first is gone, though nobody takes leave, and back when it is there again.
func TestServersInOrder(t *testing.T) {
	t.Parallel()
	j := newJoined(t)
	second := newSite(t, "second")
	lab.Link(t, second.host, j.alice.host, lab.Addresses("203.0.113.1/24", "203.0.113.2/24"))
	second.env = []string{stateDirEnv + "=" + second.state()}
	second.write(`    listen: 2000
    addresses: [10.50.0.1/24, 10.30.0.1/32]
    server: {push: {routes: [10.30.0.0/16]}}
`)
	text := strings.Replace(read(t, j.server.file), "    server:\n", `    server:
      others: {second: {public_key: "`+second.pub+`", endpoints: ["203.0.113.1:2000"]}}
`, 1)
	if err := os.WriteFile(j.server.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	j.server.must("up", j.server.file)
	second.must("up", second.file)
	if out, code := j.alice.join(j.invite("alice")); code != 0 {
		t.Fatalf("join: %d\n%s", code, out)
	}
	j.alice.reaches("10.30.0.1")
	second.refused(2, "--public-key", "client", "add", "alice")
	second.must("client", "add", "alice", "--public-key", j.alice.tunnel().PublicKey)
	has := func(is, isNot string) {
		t.Helper()
		lab.Eventually(t, patience, "the address "+is+" alone", func() bool {
			out := j.alice.host.Shell("ip", "-br", "address", "show", "vpn0")
			return strings.Contains(out, is) && !strings.Contains(out, isNot)
		})
		j.alice.reaches("10.30.0.1")
	}
	has("10.20.0.2/24", "10.50.")
	pid := j.server.pid()
	j.server.kill(pid, syscall.SIGKILL)
	j.server.ended(pid)
	has("10.50.0.2/24", "10.20.")
	j.server.must("up", j.server.file)
	has("10.20.0.2/24", "10.50.")
}
