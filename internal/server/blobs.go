package server

import (
	"fmt"

	"github.com/hallmark-iot/hallmark/internal/blob"
	"github.com/hallmark-iot/hallmark/internal/blob/files"
	"github.com/hallmark-iot/hallmark/internal/blob/s3"
)

// checkArtifacts says what is wrong with the place that artifacts are kept in.
func (c Config) checkArtifacts() error {
	if c.Artifacts == "" {
		return nil
	}
	if _, err := s3.Open(c.Artifacts); err != nil {
		return fmt.Errorf("artifacts: %w", err)
	}
	return nil
}

// openBlobs opens the place that artifacts are kept in; a bucket is connected to when it is needed.
func (i *Instance) openBlobs() (*blob.Store, error) {
	if i.cfg.Artifacts == "" {
		place, err := files.Open(i.layout.Blobs())
		return blob.New(place, i.db.Blobs()), err
	}
	at, err := s3.Open(i.cfg.Artifacts)
	if err != nil {
		return nil, fmt.Errorf("artifacts: %w", err)
	}
	return blob.New(s3.NewArtifacts(at), i.db.Blobs()), nil
}
