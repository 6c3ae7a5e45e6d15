package vmlink

import (
	"testing"

	"culvert/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }
