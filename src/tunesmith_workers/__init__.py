"""What runs inside the processes that recipes start. The only package that imports torch.

From the control plane it imports ``tunesmith.contract`` and nothing else.
"""
