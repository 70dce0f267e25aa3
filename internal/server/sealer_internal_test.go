package server

import (
	"bytes"
	"testing"
)

// What clients are given to show again is sealed under a key of its own: neither key opens what the other sealed, under whatever label, and both are the same ones after a restart.
func TestLinksAreSealedUnderAKeyOfTheirOwn(t *testing.T) {
	_, keys := made(t)
	secrets, err := newSealer(keys)
	if err != nil {
		t.Fatal(err)
	}
	links, err := newLinkSealer(keys)
	if err != nil {
		t.Fatal(err)
	}
	again, err := newLinkSealer(keys)
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte("who may fetch what")
	link, err := links.Seal("label", plain)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := secrets.Seal("label", plain)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open("label", link); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("a link opens as %q: %v", got, err)
	}
	if _, err := links.Open("another", link); err == nil {
		t.Error("a link opens under another label")
	}
	if _, err := secrets.Open("label", link); err == nil {
		t.Error("the key of the database's secrets opens a link")
	}
	if _, err := links.Open("label", secret); err == nil {
		t.Error("the key of links opens a secret of the database")
	}
}
