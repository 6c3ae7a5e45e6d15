package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// screen is a terminal of a site, which tmux keeps.
type screen struct {
	*site
	socket string
}

// newScreen opens a terminal that runs a command of this program.
func (s *site) newScreen(width, height string, environment string, args ...string) *screen {
	s.t.Helper()
	tmux := lab.NeedProgram(s.t, "tmux")
	c := &screen{s, filepath.Join(s.t.TempDir(), "tmux")}
	exe, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(c.socket), "culvert") // by whose name the test binary is the program
	if err := os.Symlink(exe, link); err != nil {
		s.t.Fatal(err)
	}
	// The shell stays, so that what the program leaves behind on the screen can be seen.
	line := "env LANG=C.UTF-8 " + environment + " " + link + " " + strings.Join(args, " ") + "; echo ended with $?; exec cat"
	cmd := s.host.Command(s.t.Context(), tmux, "-S", c.socket, "-f", "/dev/null", "-u", "new-session", "-d", "-x", width, "-y", height, line)
	if _, err := s.host.Output(cmd); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { exec.Command(tmux, "-S", c.socket, "kill-server").Run() })
	return c
}

func (c *screen) tmux(args ...string) string {
	c.t.Helper()
	return c.host.Shell("tmux", append([]string{"-S", c.socket}, args...)...)
}

func (c *screen) press(keys ...string) { c.tmux(append([]string{"send-keys"}, keys...)...) }

// shows waits until the screen has all that is wanted, in regular expressions, and returns it.
func (c *screen) shows(want ...string) (text string) {
	c.t.Helper()
	lab.Eventually(c.t, patience, "a screen with "+strings.Join(want, ", "), func() bool {
		text = c.tmux("capture-pane", "-p")
		for _, w := range want {
			if !regexp.MustCompile(w).MatchString(text) {
				return false
			}
		}
		return true
	})
	return text
}

// The live view on a terminal, of a daemon that ends and comes back.
func TestTopOnATerminal(t *testing.T) {
	t.Parallel()
	a, b := newSites(t)
	a.must("up", a.file)
	b.must("up", b.file)
	a.reaches("10.20.0.2")
	c := a.newScreen("80", "24", "", "top", "--interval", "200ms")
	c.shows(`culvert top +1 tunnel, 1 of 1 peer in contact`, `● wg0 +1000 .* 1/1`, `● b +\d+s +[\d.]+.s`, `q quit|\? help`)
	ping := a.host.Command(t.Context(), "ping", "-q", "-i", "0.01", "-s", "1000", "10.20.0.2")
	if err := a.host.Start(ping); err != nil {
		t.Fatal(err)
	}
	c.shows(`● b .*[█▇▆▅]+ +[\d.]+[kM]`)
	c.press("Enter")
	c.shows("wg0 > b", regexp.QuoteMeta(b.pub), `endpoint +192\.0\.2\.2:2000`, `received +[\d.]+[kM] bit/s`, "culvert, post-quantum", "round trip")
	c.press("Escape")
	c.shows("PEER")
	c.press("/", "zzz")
	c.shows("no peer is like that", "/zzz")
	c.press("Escape") // and only then another: both at once are Alt and that
	c.shows("● b ")
	c.press("?")
	c.shows("this page")
	c.press("x")
	c.shows("PEER")
	c.press("Space")
	c.shows("PAUSED")
	c.press("Space")
	c.tmux("resize-window", "-x", "150", "-y", "30")
	c.shows(`192\.0\.2\.2:2000`, "INSTANCE")
	c.tmux("resize-window", "-x", "30", "-y", "6")
	c.shows(`● b `)
	c.tmux("resize-window", "-x", "80", "-y", "24")

	ping.Process.Kill()
	ping.Wait()
	a.must("down", "site")
	c.shows("site does not run any more", `wg0 \(gone\)`)
	a.must("up", a.file)
	a.reaches("10.20.0.2")
	if text := c.shows("1 of 1 peer in contact", `● b `); strings.Contains(text, "any more") {
		t.Errorf("of a daemon that is back:\n%s", text)
	}
	c.press("q")
	if text := c.shows("ended with 0"); strings.Contains(text, "PEER") {
		t.Errorf("the view is left on the screen:\n%s", text)
	}
}

// Colours are there, unless NO_COLOR is set; and ASCII is enough where it has to be.
func TestTopColours(t *testing.T) {
	t.Parallel()
	a, _ := newSites(t)
	a.must("up", a.file)
	colour := regexp.MustCompile(`\x1b\[[\d;]*3[1-6]m`)
	for environment, coloured := range map[string]bool{"A=b": true, "NO_COLOR=1": false} {
		c := a.newScreen("80", "24", environment, "top", "--ascii")
		text := c.shows("0 of 1 peer in contact")
		if strings.ContainsFunc(text, func(r rune) bool { return r > 126 }) {
			t.Errorf("beyond ASCII:\n%s", text)
		}
		if raw := c.tmux("capture-pane", "-p", "-e"); colour.MatchString(raw) != coloured || !strings.Contains(raw, "\x1b[") {
			t.Errorf("%s: %q", environment, raw)
		}
	}
	// Where there is no terminal it is one frame, and a wrong name is told at once.
	if out := a.must("top", "--interval", "200ms"); !strings.Contains(out, "wg0") || strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
	a.refused(1, "nothing called nosuch is running", "top", "nosuch")
	a.refused(2, "--interval must be between", "top", "--interval", "1ms")
}
