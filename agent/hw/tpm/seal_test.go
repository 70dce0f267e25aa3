package tpm_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/hallmark-iot/hallmark/agent/hw"
	"github.com/hallmark-iot/hallmark/agent/hw/boardtest"
	"github.com/hallmark-iot/hallmark/agent/hw/tpm"
)

// extend changes a register, as a boot stage that measures another one does.
func extend(t *testing.T, socket string, pcr tpm2.TPMHandle) {
	t.Helper()
	line, err := linuxudstpm.Open(socket)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: pcr, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: bytes.Repeat([]byte{1}, 32)}}},
	}.Execute(line)
	if err := errors.Join(err, line.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestASecretComesOutInTheStateItWasSealedIn(t *testing.T) {
	dir := t.TempDir()
	socket, off := boardtest.TPM(t, dir)
	with := func(do func(s *tpm.Sealed)) {
		t.Helper()
		k, err := tpm.Open(socket)
		if err != nil {
			t.Fatal(err)
		}
		s, err := k.Sealed([]uint{4, 7})
		if err != nil {
			t.Fatal(err)
		}
		do(s)
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var first []byte
	opens := func(s *tpm.Sealed) {
		t.Helper()
		got, err := s.Unseal()
		if err != nil || len(got) != 32 || first != nil && !bytes.Equal(got, first) {
			t.Fatalf("%x, %v, want %x", got, err, first)
		}
		first = got
	}
	closed := func(want error) func(s *tpm.Sealed) {
		return func(s *tpm.Sealed) {
			t.Helper()
			if got, err := s.Unseal(); !errors.Is(err, want) || got != nil {
				t.Fatalf("%x, %v, want %v", got, err, want)
			}
		}
	}
	with(closed(hw.ErrNoKey))
	with(func(s *tpm.Sealed) {
		if err := s.Renew(); err != nil {
			t.Fatal(err)
		}
		opens(s)
	})
	extend(t, socket, 10) // not one that it is sealed to
	with(opens)
	extend(t, socket, 7)
	with(closed(hw.ErrOtherState))
	off()
	socket, _ = boardtest.TPM(t, dir) // the machine is started again, as it was
	with(opens)
	extend(t, socket, 4)
	with(func(s *tpm.Sealed) {
		if err := s.Renew(); err != nil {
			t.Fatal(err)
		}
		first = nil
		opens(s)
		for range 2 {
			if err := s.Destroy(); err != nil {
				t.Fatal(err)
			}
		}
	})
	with(closed(hw.ErrNoKey))
	with(func(s *tpm.Sealed) {
		for range 5 { // nothing of it stays in the TPM's memory, which has room for three
			if err := s.Renew(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestThereAreNoOtherRegisters(t *testing.T) {
	k := open(t, func() string { s, _ := boardtest.TPM(t, t.TempDir()); return s }())
	for _, pcrs := range [][]uint{nil, {24}, {7, 1 << 20}} {
		if _, err := k.Sealed(pcrs); err == nil {
			t.Errorf("sealed to %v", pcrs)
		}
	}
}
