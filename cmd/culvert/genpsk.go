package main

import (
	"github.com/spf13/cobra"

	"culvert/crypto"
)

func (p *program) genpsk() *cobra.Command {
	return &cobra.Command{
		Use:   "genpsk",
		Short: "make a preshared key",
		Long: `Usage: culvert genpsk

Writes a new preshared key (256 random bits, base64) to the output. It is optional, one for each pair of peers, and the
same on both sides; it keeps recorded traffic closed should X25519 ever be broken.

  (umask 077; culvert genpsk > branch.psk)
`,
		Args: needArgs(),
		RunE: func(*cobra.Command, []string) error {
			k, err := crypto.GeneratePresharedKey()
			if err != nil {
				return err
			}
			defer k.Zero()
			return p.writeSecret(k.Base64())
		},
	}
}
