package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// niceOfThreads are the nice values of a process's threads, each once.
func niceOfThreads(t *testing.T, pid int) (values []int) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatal(threads, err)
	}
	seen := map[int]bool{}
	for _, file := range threads {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		var nice int
		if _, err := fmt.Sscan(fields[16], &nice); err != nil { // field 19 of proc_pid_stat(5)
			t.Fatal(err)
		}
		if !seen[nice] {
			seen[nice] = true
			values = append(values, nice)
		}
	}
	return values
}

// A daemon has its packets' priority on every thread, and its children have the one it was started with.
func TestPriority(t *testing.T) {
	t.Parallel()
	s := newSite(t, "a")
	hook := "    hooks: {post_up: [\"nice > " + s.dir + "/hook\"]}\n"
	for _, c := range []struct {
		name, top string
		before    []string // of the command
		want      int
		hook      string
	}{
		{"default", "", nil, defaultNice, "0"},
		{"started with another", "", []string{"nice", "-n", "3"}, 3, "3"},
		{"asked for", "nice: -4\n", []string{"nice", "-n", "3"}, -4, "3"},
		{"none", "nice: 0\n", nil, 0, "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "version: 1\n" + c.top + "tunnels:\n  wg0:\n    private_key_file: key\n" + hook
			if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := s.command("up", s.file)
			if len(c.before) > 0 {
				path, err := exec.LookPath(c.before[0])
				if err != nil {
					t.Fatal(err)
				}
				// The program is the test's own binary, by the name it is called.
				link := filepath.Join(t.TempDir(), filepath.Base(cmd.Args[0]))
				if err := os.Symlink(cmd.Path, link); err != nil {
					t.Fatal(err)
				}
				cmd.Path, cmd.Args = path, append(append(c.before, link), cmd.Args[1:]...)
			}
			if out, code := s.finish(cmd); code != 0 {
				t.Fatalf("up ended with %d: %s", code, out)
			}
			if got := niceOfThreads(t, s.pid()); len(got) != 1 || got[0] != c.want {
				t.Errorf("threads have %v, want %d", got, c.want)
			}
			if got := strings.TrimSpace(read(t, filepath.Join(s.dir, "hook"))); got != c.hook {
				t.Errorf("a hook has %s, want %s", got, c.hook)
			}
			s.must("down", "site")
		})
	}
}
