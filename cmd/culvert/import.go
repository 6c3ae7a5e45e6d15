package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"culvert/config"
)

func (p *program) importCommand() *cobra.Command {
	var keyDir string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "turn a wg-quick file into YAML",
		Long: `Usage: culvert import wg0.conf > wg0.yaml [--keys DIR]

Writes a wg-quick file as culvert's YAML to the output. Its keys go to files of mode 0600, which the YAML names: next to the
file the output goes to, or in the current directory where it goes elsewhere. Existing files are never overwritten.

  --keys DIR   put the key files there, and name them with their full path
`,
		Args: needArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if ext := strings.ToLower(filepath.Ext(args[0])); ext == ".yaml" || ext == ".yml" {
				return hint(fmt.Errorf("%s is not a wg-quick file", args[0]), "import reads NAME.conf; a YAML file can be used as it is")
			}
			file, err := config.Load(args[0])
			if err != nil {
				return err
			}
			named, dir := "", outputDir(p.stdout)
			if keyDir != "" {
				if named, err = filepath.Abs(keyDir); err != nil {
					return err
				}
				dir = named
			}
			in := config.ImportWGQuick(file, named)
			p.warn(file.Warnings)
			p.warn(in.Warnings)
			var text bytes.Buffer
			if err := config.WriteYAML(&text, in.File); err != nil {
				return err
			}
			written, err := writeSecrets(in.Secrets, dir)
			if err == nil {
				_, err = p.stdout.Write(text.Bytes())
			}
			if err != nil {
				for _, path := range written {
					err = errors.Join(err, os.Remove(path))
				}
				return err
			}
			for _, path := range written {
				fmt.Fprintf(p.stderr, "wrote %s\n", path)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&keyDir, "keys", "", "")
	return cmd
}

// outputDir is the directory of the file w writes to, or the current one.
func outputDir(w io.Writer) string {
	f, ok := w.(*os.File)
	if !ok {
		return "."
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return "."
	}
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil || !filepath.IsAbs(path) {
		return "."
	}
	return filepath.Dir(path)
}

// writeSecrets writes key files that must not exist yet, relative ones under dir. It returns those it made, also on
// failure.
func writeSecrets(secrets []config.SecretFile, dir string) (written []string, err error) {
	for _, s := range secrets {
		path := s.Path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if errors.Is(err, os.ErrExist) {
			return written, hint(fmt.Errorf("%s exists already", path), "move it away, or choose another place with --keys DIR")
		}
		if err != nil {
			return written, fmt.Errorf("cannot make a key file: %w", err)
		}
		written = append(written, path)
		_, err = f.Write(s.Content)
		clear(s.Content)
		if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
			return written, fmt.Errorf("cannot write a key file: %w", err)
		}
	}
	return written, nil
}
