package server_test

import (
	"testing"

	"culvert/server"
	"culvert/server/storetest"
)

func TestMemory(t *testing.T) { storetest.Run(t, &server.Memory{}, nil) }
