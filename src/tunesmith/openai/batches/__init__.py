"""Batches: files of requests, answered one by one in the background. Which engine answers is not decided here."""

from tunesmith.openai.batches.asked import AskedModels
from tunesmith.openai.batches.asking import Models
from tunesmith.openai.batches.book import BatchBook, BatchSummary
from tunesmith.openai.batches.lines import Answer
from tunesmith.openai.batches.service import BatchRequest, BatchService
from tunesmith.openai.batches.work import Files

__all__ = ["Answer", "AskedModels", "BatchBook", "BatchRequest", "BatchService", "BatchSummary", "Files", "Models"]
