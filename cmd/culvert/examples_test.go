package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"culvert/config"
	"culvert/crypto"
	"culvert/setup/model"
)

var keyFileName = regexp.MustCompile(`(?m)^\s+private_key_file: (\S+)( +#.*)?$`)

// loadExample loads a file of examples/ with fresh keys for its tunnels.
func loadExample(t *testing.T, name string) *config.File {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, m := range keyFileName.FindAllSubmatch(text, -1) {
		key, err := crypto.GeneratePrivateKey()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, string(m[1])), []byte(key.Base64()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, filepath.Base(name))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// Every example, and the file that says everything there is to say, expands to items that are each named once, come behind those they
// need, have only fields that the model describes, and know their line.
func TestExamplesExpand(t *testing.T) {
	names, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(names) < 15 {
		t.Fatalf("%d examples, %v", len(names), err)
	}
	for _, name := range append(names, "../../config/testdata/good/setup.yaml") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			file := loadExample(t, name)
			made := map[model.ID]bool{}
			for _, item := range model.Expand(&file.Setup) {
				if made[item.ID] {
					t.Errorf("%s is there twice", item.ID)
				}
				for _, need := range item.Needs {
					if !made[need] {
						t.Errorf("%s comes before %s, which it needs", item.ID, need)
					}
				}
				made[item.ID] = true
				for field := range item.Fields {
					if model.Describe(item.ID.Kind(), item.Type, field) == nil {
						t.Errorf("%s of type %q has the field %s, which nothing describes", item.ID, item.Type, field)
					}
				}
				if item.Place.Origin.Line == 0 {
					t.Errorf("%s does not know its line", item.ID)
				}
			}
			if len(made) < 2 {
				t.Errorf("only %d items", len(made))
			}
			var b bytes.Buffer
			if err := writeSummary(&b, file); err != nil || !bytes.Contains(b.Bytes(), []byte("\nnetwork\n")) {
				t.Errorf("%v: %s", err, b.Bytes())
			}
		})
	}
}
