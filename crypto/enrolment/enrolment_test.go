package enrolment

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"culvert/crypto"
)

func secretOf(b byte) (s Secret) {
	for i := range s {
		s[i] = b
	}
	return s
}

func derive(t *testing.T, s Secret, server crypto.PublicKey) (crypto.PrivateKey, crypto.PresharedKey) {
	t.Helper()
	key, psk, err := Derive(s, server)
	if err != nil {
		t.Fatal(err)
	}
	return key, psk
}

// TestDeriveVector fixes the derivation: links outlive the program that made them. The values were computed apart from this code, by
// HMAC as RFC 2104 writes it over Python's hashlib.blake2s.
func TestDeriveVector(t *testing.T) {
	key, psk := derive(t, secretOf(7), crypto.PublicKey(secretOf(9)))
	if key.Hex() != wantKey || psk.Hex() != wantPSK {
		t.Errorf("key %s\npsk %s", key.Hex(), psk.Hex())
	}
}

// TestDeriveSeparates: another secret, another server or another purpose is another key.
func TestDeriveSeparates(t *testing.T) {
	seen := map[string]string{}
	for _, secret := range []byte{1, 2} {
		for _, server := range []byte{3, 4} {
			key, psk := derive(t, secretOf(secret), crypto.PublicKey(secretOf(server)))
			for what, text := range map[string]string{"key": key.Hex(), "psk": psk.Hex()} {
				name := fmt.Sprintf("%s of %d for %d", what, secret, server)
				if other, twice := seen[text]; twice {
					t.Errorf("%s is %s", name, other)
				}
				seen[text] = name
			}
		}
	}
}

func TestSecretIsHidden(t *testing.T) {
	s := secretOf(0xab)
	text := fmt.Sprintf("%v %+v %#v %x %s %q", s, s, s, s, s, s)
	if strings.Contains(strings.ToLower(text), hex.EncodeToString(s[:4])) || strings.Contains(text, "171") {
		t.Errorf("printed as %s", text)
	}
}

func TestGenerateSecret(t *testing.T) {
	a, err := GenerateSecret()
	b, err2 := GenerateSecret()
	if err != nil || err2 != nil || a.Equal(b) || a.Equal(Secret{}) {
		t.Errorf("%v %v", err, err2)
	}
}

const (
	wantKey = "d81c1cadcee82fe3e403098ee82c173615859f6198fc5fec2225cfa3ae231757"
	wantPSK = "949beb620e4aabff2fd753d49048da9b47c4ce4c94b98c3f316e88113071ec4d"
)
