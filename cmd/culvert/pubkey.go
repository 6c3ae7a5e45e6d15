package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"culvert/crypto"
)

func (p *program) pubkey() *cobra.Command {
	return &cobra.Command{
		Use:   "pubkey",
		Short: "the public key of a private key",
		Long: `Usage: culvert pubkey < PRIVATE-KEY-FILE

Reads a private key (base64) and writes its public key, the one to give to peers.

  culvert pubkey < office.key > office.pub
`,
		Args: needArgs(),
		RunE: func(*cobra.Command, []string) error {
			const most = 4096
			in, err := io.ReadAll(io.LimitReader(p.stdin, most))
			defer clear(in)
			if err != nil {
				return fmt.Errorf("cannot read the private key: %w", err)
			}
			k, err := crypto.ParsePrivateKey(strings.TrimSpace(string(in)))
			if err != nil {
				return hint(fmt.Errorf("the input is not a private key: %w", err), "give it what culvert genkey wrote, and nothing else")
			}
			defer k.Zero()
			if _, err := fmt.Fprintln(p.stdout, k.Public().Base64()); err != nil {
				return fmt.Errorf("cannot write the public key: %w", err)
			}
			return nil
		},
	}
}
