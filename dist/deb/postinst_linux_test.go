package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"culvert/internal/lab"
)

// At an upgrade of the package each instance is upgraded; a service that cannot is restarted, and what else cannot goes on.
func TestPostinstUpgradesWhatRuns(t *testing.T) {
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	for name, text := range map[string]string{
		"systemctl": `case "$1" in
list-units) echo "culvert@office.service loaded active running culvert office"; echo "culvert@old.service loaded active running culvert old" ;;
*) echo "systemctl $*" >> "$SAID" ;;
esac`,
		"culvert": `echo "culvert $*" >> "$SAID"; case "$2" in *old*) exit 1 ;; esac`,
	} {
		lab.WriteProgram(t, filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755)
	}
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hand", "hand-old"} {
		l, err := net.Listen("unix", filepath.Join(run, name+".sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	if err := os.WriteFile(filepath.Join(run, "hand.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("scripts/postinst")
	if err != nil {
		t.Fatal(err)
	}
	functions, _, ok := strings.Cut(string(script), "\ncase ")
	if !ok {
		t.Fatal("postinst has no cases")
	}
	cmd := exec.Command("sh", "-c", functions+"\nupgrade_services\nupgrade_others\n")
	cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "LC_ALL=C", "SAID=" + said, "CULVERT_RUN_DIR=" + run}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	const want = `culvert upgrade /etc/culvert/office.yaml
culvert upgrade /etc/culvert/old.yaml
systemctl try-restart culvert@old.service
culvert upgrade hand-old
culvert upgrade hand
`
	if string(got) != want {
		t.Errorf("it did\n%s\nnot\n%s", got, want)
	}
	if text := string(out); !strings.Contains(text, "culvert@old.service is restarted") || !strings.Contains(text, "hand-old goes on with the old program") {
		t.Errorf("it said\n%s", text)
	}
}
