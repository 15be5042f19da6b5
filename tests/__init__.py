"""Tests on real servers, real worker processes and really trained models."""
