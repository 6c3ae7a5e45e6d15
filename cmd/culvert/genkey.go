package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"culvert/crypto"
)

func (p *program) genkey() *cobra.Command {
	return &cobra.Command{
		Use:   "genkey",
		Short: "make a private key",
		Long: `Usage: culvert genkey

Writes a new private key (X25519, base64) to the output. Keep it from others:

  (umask 077; culvert genkey > office.key)
  culvert pubkey < office.key > office.pub
`,
		Args: needArgs(),
		RunE: func(*cobra.Command, []string) error {
			k, err := crypto.GeneratePrivateKey()
			if err != nil {
				return err
			}
			defer k.Zero()
			return p.writeSecret(k.Base64())
		},
	}
}

// writeSecret writes a key to the output, with a warning where everybody may read it there.
func (p *program) writeSecret(text string) error {
	if readableByAll(p.stdout) {
		fmt.Fprintf(p.stderr, "culvert: warning: everybody can read the file this key goes to\n"+
			"  hint: make key files with \"umask 077\" set, and a new key now\n")
	}
	if _, err := fmt.Fprintln(p.stdout, text); err != nil {
		return fmt.Errorf("cannot write the key: %w", err)
	}
	return nil
}

// readableByAll reports whether w is a regular file that others than its owner and group may read.
func readableByAll(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o007 != 0
}
