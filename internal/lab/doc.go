// Package lab gives tests real networks: hosts that are network namespaces joined by veth pairs, routers with address
// translation among them, programs built for the test, and QEMU guests for what the host's kernel lacks.
//
// Everything a test makes goes away with it, also when it fails, and names carry the process's number, so that tests
// run side by side. What a machine cannot do skips the test with the reason; with CULVERT_NO_SKIP=1 in the
// environment it fails instead, so that continuous integration cannot pass by testing nothing.
package lab
