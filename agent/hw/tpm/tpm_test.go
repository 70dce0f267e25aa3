package tpm_test

import (
	"testing"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/boardtest"
	"github.com/hallmark-iot/hallmark/agent/hw/keystest"
	"github.com/hallmark-iot/hallmark/agent/hw/tpm"
	"github.com/hallmark-iot/hallmark/suite"
)

func open(t *testing.T, socket string) *tpm.Keys {
	t.Helper()
	k, err := tpm.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func TestATPMKeepsKeys(t *testing.T) {
	socket, _ := boardtest.TPM(t, t.TempDir())
	keystest.Run(t, keystest.Store{
		Open: func(t *testing.T) hw.KeyStore { return open(t, socket) }, Suites: []suite.ID{suite.P256, suite.P384}, Hard: true,
	})
}

func TestTheTPMTestsItself(t *testing.T) {
	socket, off := boardtest.TPM(t, t.TempDir())
	k := open(t, socket)
	if err := k.SelfTest(); err != nil {
		t.Error(err)
	}
	off()
	if err := k.SelfTest(); err == nil {
		t.Error("a TPM that is not there is well")
	}
}

// A key is there after the power has failed, and one that was destroyed is not.
func TestKeysOutliveThePower(t *testing.T) {
	dir := t.TempDir()
	off := func() {}
	keystest.Survives(t, suite.P256, func() hw.KeyStore {
		var socket string
		socket, off = boardtest.TPM(t, dir)
		return open(t, socket)
	}, func() { off() })
}
